"""The ranks that slow a job down."""

from __future__ import annotations

from otel_train.diagnose.stragglers import find_stragglers
from otel_train.read import History, Track


def test_straggler_beats_chance() -> None:
    """Turns that fall evenly name no rank; one that is the last at nearly every step is named with its excess."""
    even, uneven = History("rings", "run"), History("rings", "run")
    for history, excess in ((even, 0.0), (uneven, 0.05)):
        for rank in range(3):
            track = history.ranks[rank] = Track()
            for step in range(60):
                wait = 0.01 * ((step + rank) % 3) + (excess if rank == 2 else 0.0)
                track.add(step, step, {"train/data_wait": wait, "train/step_duration": 0.1})
    assert find_stragglers(even) == []
    (finding,) = find_stragglers(uneven)
    assert (finding.rank, finding.check, (finding.chance or 1) < 1e-20) == (2, "train/data_wait", True)
