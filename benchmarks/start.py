"""Measure what telemetry adds to the start of a rank's process: its import beyond torch's, and `init`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

from benchmarks.builds import BASELINE, baseline
from benchmarks.fresh import ROOT, output_of_rank, sidecar_left
from benchmarks.measure import Figures, Goal, Section
from benchmarks.receiver import running_receiver

OURS = "otel_train: import and otel_train.init"
INIT = "otel_train: init(), the sidecar started"
FIRST_STEP = "otel_train: import, init() and the first step"
BASES = {name: f"{name}, {BASELINE}" for name in (OURS, INIT, FIRST_STEP)}
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
    rounds = 2 if quick else 9
    seconds: dict[str, list[float]] = {name: [] for name in (TORCH, *AFTER_TORCH, *BASES.values(), INIT, FIRST_STEP)}
    with baseline() as root:
        for number in range(rounds + 1):  # the first round writes what bytecode is missing
            took: dict[str, float] = {}
            for name, imported in AFTER_TORCH.items():
                loaded = cast(dict[str, float], output_of_rank({}, "import", *imported))
                took[name] = loaded["names"]
                if name == OURS:
                    took[TORCH] = loaded["torch"]
                    base = cast(dict[str, float], output_of_rank({}, "import", *imported, root=root))
                    took[BASES[OURS]] = base["names"]
            took[INIT], took[FIRST_STEP] = _init(ROOT)
            took[BASES[INIT]], took[BASES[FIRST_STEP]] = _init(root)
            if number:
                for name, value in took.items():
                    seconds[name].append(value)
    figures = {name: Figures([value * 1000 for value in times]) for name, times in seconds.items()}
    ours, init = figures[OURS].median, figures[INIT].median
    return Section(
        number=11,
        title="The start of a process",
        how=(
            f"A new process each time, {rounds} rounds, the contenders in turn; the CPU time from torch being there to "
            "the names being there, bytecode and files cached. Ours has in it what the first use of otel_train.init "
            "loads; what only a session that records needs, init() itself loads, and the rows up to the first step "
            "have. init() is by the clock; it starts the sidecar and does not wait for it; each was seen to have sent "
            "its step in the end."
        ),
        unit="ms",
        figures=figures,
        ours=OURS,
        goals=[
            Goal(
                "import <= 15 ms beyond torch's",
                f"{ours:.1f} ms ({BASELINE}: {figures[BASES[OURS]].median:.1f})",
                ours <= 15,
            ),
            Goal("init() <= 300 ms", f"{init:.1f} ms", init <= 300),
        ],
    )


def _init(root: Path) -> tuple[float, float]:
    """Return the seconds of `init` in a new process, and those from torch to the first step; the sidecar sent it."""
    with running_receiver() as receiver, tempfile.TemporaryDirectory() as folder:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_TRAIN_RING_DIR": folder}
        took = cast(dict[str, float], output_of_rank(environment, "init", root=root))
        sidecar_left(Path(folder))
        if not took["arrived"] or not receiver.requests():
            raise RuntimeError("the sidecar that init started did not send")
    return took["init"], took["first_step"]
