"""Build the wandb row of one step from its points and the totals of the row before it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from otel_train.bridge.decode import Kind
from otel_train.catalogue import ATTEMPT_KEY, PARTIAL_KEY, rank_name, rows, wandb_key

STEP_KEY = rows.STEP.wandb_key

Row = dict[str, float]
SeriesKey = tuple[str, str]
"""Name and modality of a series."""


class Arrived(NamedTuple):
    """One point of a step as the inbox keeps it; a tuple is created in a third of a dataclass' time."""

    name: str
    modality: str
    kind: Kind
    value: float


@lru_cache(maxsize=4096)
def _key(name: str, modality: str) -> str | None:
    rank = rank_name(name)
    return wandb_key(rank, modality) if rank is not None else None


def build_row(
    arrived: Iterable[Arrived],
    totals: Mapping[SeriesKey, float],
    *,
    attempt: int,
    step: int | None,
    partial: bool = False,
    late: bool = False,
) -> tuple[Row, dict[SeriesKey, float]]:
    """Build a step's row, counters as what was added since the row before.

    Args:
        arrived: The step's points, each series once.
        totals: The attempt's cumulative values as of the row before; a series that is not in it begins at 0.
        attempt: The attempt that the step belongs to.
        step: The train step, None where its point never came.
        partial: Whether points are missing.
        late: Whether a later step's row was written already. That row's counts hold this step's too, so this row
            has none and the totals stay: the counts of all rows add up to the total in any order of arrival.

    Returns:
        The row, and the totals that changed.
    """
    row: Row = {}
    changed: dict[SeriesKey, float] = {}
    for point in sorted(arrived, key=lambda one: (one.name, one.modality)):
        key = _key(point.name, point.modality)
        # A leading underscore is wandb's own (_step, _timestamp): nobody outside may set those.
        if key is None or key.startswith("_") or point.kind is Kind.PRESENT:
            continue
        value = point.value
        if point.kind is Kind.CUMULATIVE:
            if late:
                continue
            series = (point.name, point.modality)
            before = totals.get(series, 0)
            if math.isfinite(value):
                changed[series] = value
                if value >= before:  # else the counter began again, at 0
                    value -= before
        row[key] = value
    if step is not None:
        row[STEP_KEY] = step
    row[ATTEMPT_KEY] = attempt
    if partial or late:
        row[PARTIAL_KEY] = 1
    return row, changed
