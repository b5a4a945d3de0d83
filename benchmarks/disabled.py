"""Measure what `telemetry.step` costs when telemetry is off: `OTEL_SDK_DISABLED=true`, the user's line left in."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import wandb
from opentelemetry.sdk.metrics import MeterProvider

import otel_train
from benchmarks.fresh import in_fresh_process
from benchmarks.measure import Figures, Goal, Section
from otel_train.catalogue import HEADLINE_KEYS

Loop = Callable[[int], None]
"""Runs so many steps: a step is shorter than a reading of the clock, so that blocks are timed."""
OURS = "otel_train: telemetry.step(step, {key: loss})"
NOTHING = "nothing (the loop, and a dict of one loss)"


def run(*, quick: bool) -> Section:
    """Measure."""
    return in_fresh_process({"OTEL_SDK_DISABLED": "true"}, _measure, quick=quick)


def _measure(*, quick: bool) -> Section:
    rounds, steps = (5, 2_000) if quick else (300, 4_000)
    figures = time_blocks(_loops(), rounds=rounds, steps=steps)
    ours = figures[OURS].median
    return Section(
        number=2,
        title="Telemetry switched off",
        how=(
            f"OTEL_SDK_DISABLED=true in the environment, {rounds} blocks of {steps:,} steps of each in turn; a figure "
            "is a block's time over its steps, that of a loop which makes a dict of one loss, as the user's line does, "
            "taken off. wandb, which is disabled by its own switch, gets a dict of 15."
        ),
        unit="µs",
        figures=figures,
        ours=OURS,
        goals=[Goal("<= 0.1 µs a step", f"{ours:.3f} µs", ours <= 0.1)],
    )


def _loops() -> dict[str, Loop]:
    telemetry = otel_train.init(sources=[otel_train.MixingMeter(4, ["code"], {"code": 1.0})])
    loss = 1.5

    def nothing(steps: int) -> None:
        for _step in range(steps):
            {"train/loss": loss}  # noqa: B018  # what the user's line makes, whoever gets it

    def ours(steps: int) -> None:
        for step in range(steps):
            telemetry.step(step, {"train/loss": loss})

    return {
        NOTHING: nothing,
        OURS: ours,
        "logging.debug, off": _debug(),
        "OTel SDK, 15 gauges, off": _gauges(),
        "wandb.log, mode=disabled": _wandb(),
    }


def _debug() -> Loop:
    logger = logging.getLogger("bench")

    def loop(steps: int) -> None:
        for step in range(steps):
            logger.debug("step %d: loss %f", step, 1.5)

    return loop


def _gauges() -> Loop:
    meter = MeterProvider().get_meter("bench")
    gauges = [meter.create_gauge(key.replace("/", ".")) for key in HEADLINE_KEYS]

    def loop(steps: int) -> None:
        for step in range(steps):
            for gauge in gauges:
                gauge.set(step)

    return loop


def _wandb() -> Loop:
    run = wandb.init(mode="disabled")

    def loop(steps: int) -> None:
        for step in range(steps):
            run.log(dict.fromkeys(HEADLINE_KEYS, float(step)))

    return loop


def time_blocks(loops: Mapping[str, Loop], *, rounds: int, steps: int) -> dict[str, Figures]:
    """Return microseconds a step, one value a block; the first round warms up, and the empty loop is taken off."""
    values: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds + 1):
        empty = 0.0
        for name, loop in loops.items():
            begin = time.perf_counter_ns()
            loop(steps)
            cost = (time.perf_counter_ns() - begin) / steps / 1000
            if name == NOTHING:
                empty = cost
            if number:
                values[name].append(cost - empty * (name != NOTHING))
    return {name: Figures(times) for name, times in values.items()}
