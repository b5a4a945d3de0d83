"""Measure what telemetry adds to the start of a rank's process: its import beyond torch's, and `init`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

from benchmarks.fresh import output_of_rank, sidecar_left
from benchmarks.measure import Figures, Goal, Section
from benchmarks.receiver import running_receiver

OURS = "otel_train: import and otel_train.init"
INIT = "otel_train: init(), the sidecar started"
TORCH = "torch alone"
AFTER_TORCH = {
    OURS: ["otel_train:init"],
    "OTel SDK and its OTLP exporter": [
        "opentelemetry.sdk.metrics.export",
        "opentelemetry.exporter.otlp.proto.grpc.metric_exporter",
    ],
    "wandb": ["wandb:init"],
    "prometheus_client": ["prometheus_client"],
}
"""Modules that are imported after torch, `package:attribute` where it is the attribute that loads the package."""


def run(*, quick: bool) -> Section:
    """Measure."""
    rounds = 2 if quick else 15
    seconds: dict[str, list[float]] = {name: [] for name in (TORCH, *AFTER_TORCH, INIT)}
    for number in range(rounds + 1):  # the first round writes what bytecode is missing
        for name, imported in AFTER_TORCH.items():
            took = cast(dict[str, float], output_of_rank({}, "import", *imported))
            if number:
                seconds[name].append(took["names"])
                if name == OURS:
                    seconds[TORCH].append(took["torch"])
        began = _init()
        if number:
            seconds[INIT].append(began)
    figures = {name: Figures([value * 1000 for value in times]) for name, times in seconds.items()}
    ours, init = figures[OURS].median, figures[INIT].median
    return Section(
        number=11,
        title="The start of a process",
        how=(
            f"A new process each time, {rounds} rounds, the contenders in turn; the time from torch being there to the "
            "names being there, bytecode and files cached. Ours has in it what the first use of otel_train.init loads; "
            "what only a session that records needs, init() itself loads. "
            "init() starts the sidecar and does not wait for it; each was seen to have sent its step in the end."
        ),
        unit="ms",
        figures=figures,
        ours=OURS,
        goals=[
            Goal("import <= 15 ms beyond torch's", f"{ours:.1f} ms", ours <= 15),
            Goal("init() <= 300 ms", f"{init:.1f} ms", init <= 300),
        ],
    )


def _init() -> float:
    """Return the seconds that `init` took in a new process, and see that its sidecar sent the step."""
    with running_receiver() as receiver, tempfile.TemporaryDirectory() as folder:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_TRAIN_RING_DIR": folder}
        took = cast(dict[str, float], output_of_rank(environment, "init"))
        sidecar_left(Path(folder))
        if not took["arrived"] or not receiver.requests():
            raise RuntimeError("the sidecar that init started did not send")
    return took["init"]
