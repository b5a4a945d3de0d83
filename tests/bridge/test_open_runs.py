"""Which runs are open at once, and which one makes room."""

from __future__ import annotations

import pytest

from otel_train.bridge.open_runs import MOST_OPEN, OpenRuns, most_open


def test_least_recent_run_makes_room() -> None:
    """Where all get rows, the one that is open for longest; nobody before its turn ends, and in order of asking."""
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
    """A smaller bound means turns, not errors."""
    assert most_open(descriptors) == most
