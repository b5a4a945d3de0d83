"""Build the wandb row of one step from its points and the totals of the row before it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

from otel_train.bridge.decode import Kind
from otel_train.catalogue import ATTEMPT_KEY, PARTIAL_KEY, rank_name, rows, wandb_key

STEP_KEY = rows.STEP.wandb_key

Row = dict[str, float]
SeriesKey = tuple[str, str]
"""Name and modality of a series."""


Arrived = tuple[str, str, Kind, float]
"""Name, modality, kind and value of one point of a step; a plain tuple, as there are millions in a backlog."""


@lru_cache(maxsize=4096)
def _key(name: str, modality: str) -> str | None:
    """Return the key of a series in wandb's rows, None for one that is not for wandb."""
    rank = rank_name(name)
    key = wandb_key(rank, modality) if rank is not None else None
    # A leading underscore is wandb's own (_step, _timestamp): nobody outside may set those.
    return None if key is None or key.startswith("_") else key


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
        step: The train step; None where its point did not come yet: without it no row is made for good.
        partial: Whether points are missing.
        late: Whether a later step's row was written already. That row's counts hold this step's too, so this row
            has none and the totals stay: the counts of all rows add up to the total in any order of arrival.

    Returns:
        The row, and the totals that changed.
    """
    row: Row = {}
    changed: dict[SeriesKey, float] = {}
    for name, modality, kind, value in sorted(arrived):
        key = _key(name, modality)
        if key is None or kind is Kind.PRESENT:
            continue
        if kind is Kind.CUMULATIVE:
            if late:
                continue
            before = totals.get((name, modality), 0)
            if math.isfinite(value):
                changed[name, modality] = value
                if value >= before:  # else the counter began again, at 0
                    row[key] = value - before
                    continue
        row[key] = value
    if step is not None:
        row[STEP_KEY] = step
    row[ATTEMPT_KEY] = attempt
    if partial or late:
        row[PARTIAL_KEY] = 1
    return row, changed
