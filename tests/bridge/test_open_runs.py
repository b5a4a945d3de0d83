"""Runs that are open at the same time, and the one that makes room."""

from __future__ import annotations

import pytest

from otel_train.bridge.open_runs import MOST_OPEN, OpenRuns, most_open


def test_least_recent_run_makes_room() -> None:
    """The run without a row for longest makes room, else the one open for longest; none before its turn ends."""
    runs = OpenRuns(2, 600, 30)
    for run_id, now in (("a", 0), ("b", 1)):
        assert runs.admits(run_id, now)
        runs.add(run_id, now)
    runs["a"].used = 29
    assert [runs.admits(run_id, 29) for run_id in ("c", "d")] == [False, False]
    assert (runs.admits("d", 31), runs.admits("c", 31), runs.surplus(31)) == (False, True, "b")
    runs["b"].used = 30
    assert runs.surplus(31) == "a"


@pytest.mark.parametrize(("descriptors", "most"), [(-1, MOST_OPEN), (4096, MOST_OPEN), (450, 100), (64, 1)])
def test_open_runs_fit_descriptors(descriptors: int, most: int) -> None:
    """The number of open runs fits the descriptors that a process may have."""
    assert most_open(descriptors) == most
