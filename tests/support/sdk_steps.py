"""What a program of another language records at each step, and the row that wandb is to have of it."""

from __future__ import annotations

from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.catalogue import ATTEMPT_KEY, cluster_name, rows
from tests.support.sdk_senders import Measurement

STEPS = 3
"""Steps that are recorded of each SDK."""


def measure(kind: str, name: str, value: float, modality: str = "") -> Measurement:
    """Return one entry of what a program records."""
    return {"kind": kind, "name": name, "value": value, "modality": modality}


def step(number: int, *more: Measurement, counted: bool = True) -> list[Measurement]:
    """Return what a step records, of each kind of instrument; `more` is not among the points that it counts."""
    measured = [
        measure("gauge", rows.STEP.name, number),
        measure("gauge", cluster_name("train/loss"), 1 / number),
        measure("counter", cluster_name(rows.EVICTIONS.name), 2**40 + number),
        measure("counter", cluster_name(rows.TOKENS.name), 10 * number, "code"),
        measure("counter", cluster_name(rows.TOKENS.name), 1, "prose"),
        measure("updown", cluster_name("queue/depth"), -2 if number % 2 else 5),
        measure("histogram", cluster_name(rows.REUSE_DISTANCE.name), number),
    ]
    if counted:  # all but train.step, itself among them
        measured.append(measure("gauge", cluster_name(rows.STEP_POINTS.name), len(measured)))
    return measured + list(more)


def refused_step(number: int) -> list[Measurement]:
    """Return a step with a point more, which the bridge refuses."""
    return step(number, measure("gauge", cluster_name("train/loss"), 9.0, "m" * 600))


def expected_row(number: int) -> dict[str, float]:
    """Return the row that wandb has of a step: counters as what the step added, the rest as it is."""
    return {
        STEP_KEY: number,
        ATTEMPT_KEY: 1,
        "train/loss": 1 / number,
        rows.EVICTIONS.wandb_key: 2**40 + number,
        f"{rows.TOKENS.wandb_key}/code": 10 * number,
        f"{rows.TOKENS.wandb_key}/prose": 1,
        "queue/depth": 5 * (number // 2) - 2 * ((number + 1) // 2),
    }
