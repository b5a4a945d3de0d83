"""What a step costs on the training thread: ours beside OTel SDK gauges set directly and wandb.log offline.

K = 4 readers, one pick a step. The contenders take turns, a block of steps each, so that a machine that slows down
slows all of them; a block's figure is its time divided by its steps, and each line shows the median block with the 5th
and 95th percentile, and the ratio to ours, block by block.

    python -m benchmarks.hot_path [--rounds 40] [--steps 500]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import wandb
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import otel_train
from otel_train.catalogue import HEADLINE_KEYS
from otel_train.ring import Identity, Kind, RingWriter, ring_path
from otel_train.step.recorder import Recorder

READERS = 4
BUDGET = 50.0
Step = Callable[[int], None]


def meter() -> otel_train.MixingMeter:
    """Return a meter with K open slots of two modalities."""
    made = otel_train.MixingMeter(READERS, ["code", "prose"], {"code": 1.0, "prose": 1.0})
    for slot in range(READERS):
        made.open(slot, ("code", "prose")[slot % 2])
    return made


def without() -> Step:
    """Return the loop body alone: what the measuring itself costs."""
    return lambda _step: None


def hot_path(folder: Path) -> Step:
    """Return pick + drain + record: what a logged step costs before the reduction."""
    source = meter()
    recorder = Recorder([source], ())
    identity = Identity(run_id="bench", attempt=1)
    ring = RingWriter(ring_path(folder, identity), recorder.schema, identity)
    padding = [0.0] * recorder.layout.peaks
    clock = time.time_ns

    def step(number: int) -> None:
        source.pick(number % READERS, tokens=64)
        recorder.add_step(0.001, 0.0, {})
        measured = recorder.drain(number)
        ring.write(number, clock(), Kind.RANK, measured.sums + measured.peaks + padding)

    return step


def whole_step(stack: contextlib.ExitStack, folder: Path) -> Step:
    """Return the user's own lines, `telemetry.step` with a scalar, on one rank."""
    source = meter()
    telemetry = stack.enter_context(otel_train.init(sources=[source], ring_dir=folder / "rings"))

    def step(number: int) -> None:
        source.pick(number % READERS, tokens=64)
        telemetry.step(number, {"train/loss": 1.5})

    return step


def sdk_gauges() -> Step:
    """Return 15 gauges of the OTel SDK, set directly."""
    provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    gauges = [provider.get_meter("bench").create_gauge(key.replace("/", ".")) for key in HEADLINE_KEYS]

    def step(number: int) -> None:
        for gauge in gauges:
            gauge.set(number)

    return step


def wandb_log(stack: contextlib.ExitStack, folder: Path) -> Step:
    """Return one `run.log` of 15 values, offline."""
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    run = wandb.init(mode="offline", dir=str(folder), project="bench", settings=settings)
    stack.callback(run.finish)

    def step(number: int) -> None:
        run.log(dict.fromkeys(HEADLINE_KEYS, float(number)))

    return step


def measure(contenders: dict[str, Step], rounds: int, steps: int) -> dict[str, list[float]]:
    """Let the contenders take turns and return microseconds a step, a figure a round."""
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    first = 1
    for round_number in range(rounds + 1):
        for name, step in contenders.items():
            begin = time.perf_counter_ns()
            for number in range(first, first + steps):
                step(number)
            if round_number:  # the first round warms up
                figures[name].append((time.perf_counter_ns() - begin) / steps / 1000)
        first += steps
    return figures


def lines(figures: dict[str, list[float]], ours: str) -> Iterator[str]:
    """Yield one line a contender: median, 5th and 95th percentile, ratio to ours."""
    yield f"{'':34}{'median':>10}{'p5':>10}{'p95':>10}{'x ours':>10}"
    for name, values in figures.items():
        cuts = statistics.quantiles(values, n=20)
        ratio = statistics.median(value / own for value, own in zip(values, figures[ours], strict=True))
        yield f"{name:34}{statistics.median(values):>8.2f}us{cuts[0]:>8.2f}us{cuts[-1]:>8.2f}us{ratio:>10.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    os.environ["OTEL_TRAIN_SIDECAR"] = "external"
    ours = "pick + drain + record"
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        contenders = {
            "nothing (the loop)": without(),
            ours: hot_path(folder),
            "pick + telemetry.step, one rank": whole_step(stack, folder),
            "OTel SDK, 15 gauges": sdk_gauges(),
            "wandb.log offline, 15 values": wandb_log(stack, folder),
        }
        figures = measure(contenders, arguments.rounds, arguments.steps)
    print(f"a step on the training thread, K={READERS}, one pick; {arguments.rounds} rounds of {arguments.steps} steps")
    print("\n".join(lines(figures, ours)))
    print(f"the budget is {BUDGET:.0f}us a step")


if __name__ == "__main__":
    main()
