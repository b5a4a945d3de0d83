"""The picks of intervals, from decayed counts."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from otel_train.catalogue import MIXING, Layout, rows
from otel_train.read.interval_picks import IntervalPicks
from otel_train.ring import Fact

HORIZON = 100.0
FACTS: dict[str, Fact] = {"mixing.horizon": HORIZON}


def record(layout: Layout, decayed: list[float], picks: int) -> list[float]:
    """Return the sums of a record whose targets are halves."""
    sums = [0.0] * layout.sums
    counts, targets = (layout.offsets[measure.name] for measure in rows.MIX_DIVERGENCE.measures)
    sums[counts : counts + 2] = decayed
    sums[targets : targets + 2] = [sum(decayed) / 2] * 2
    sums[layout.offsets[rows.PICKS.name]] = picks
    return sums


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=2, max_size=50))
def test_decay_is_undone(picks: list[tuple[int, int]]) -> None:
    """Two ranks' picks of each interval after the first come back exactly, added up."""
    layout, intervals = Layout(MIXING, ("code", "prose")), IntervalPicks()
    for rank in (0, 1):
        decayed = [0.0, 0.0]
        for step, new in enumerate(picks):
            keep = math.exp(-sum(new) / HORIZON)
            decayed = [old * keep + count for old, count in zip(decayed, new, strict=True)]
            intervals.add(rank, step, layout, record(layout, decayed, sum(new)), FACTS)
    expected = {step: (2.0 * code, 2.0 * prose) for step, (code, prose) in enumerate(picks) if step and code + prose}
    joined, _ = intervals.joined()
    assert {interval.step: interval.picks for interval in joined} == expected


def test_lost_records_give_no_picks() -> None:
    """An interval after a record that was overwritten has no exact picks."""
    layout, intervals = Layout(MIXING, ("code", "prose")), IntervalPicks()
    intervals.add(0, 1, layout, record(layout, [8.0, 8.0], 16), FACTS)
    intervals.add(0, 3, layout, record(layout, [80.0, 80.0], 16), FACTS)
    assert intervals.joined() == ([], ())
