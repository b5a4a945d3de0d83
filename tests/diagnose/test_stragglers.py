"""The ranks that slow a job down."""

from __future__ import annotations

from otel_train.diagnose.stragglers import RECENT, find_stragglers, newest_common
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


def test_only_common_steps_are_compared() -> None:
    """Of ranks that lack different steps, those are compared that all of them have, each with each other's value."""
    tracks = [Track(), Track()]
    for rank, lacking in enumerate(({7, 290}, {291, 299})):
        for step in range(300):
            if step not in lacking:
                tracks[rank].add(step, step, {"train/data_wait": float(step)})
    expected = [step for step in range(300) if step not in {7, 290, 291, 299}][-RECENT:]
    assert newest_common(tracks, "train/data_wait") == [(step, step) for step in expected]
