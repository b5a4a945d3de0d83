"""The choice of readers and the dealing of streams: pure, stable, complete."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_train.exceptions import ConfigurationError
from otel_train.mixing import StreamMixingDataset
from otel_train.mixing.choice import ReaderChoice, reader_weights, uniform
from otel_train.mixing.dealing import StreamStart, apportion_slots, deal
from otel_train.mixing.resume import Job, reshard
from otel_train.mixing.weights import WeightSchedule
from tests.support.number_streams import Numbers


def test_pick_numbers_never_change() -> None:
    """A change of these numbers changes every job's data order."""
    assert [uniform(0, 0, 0), uniform(7, 3, 100_000)] == [0.6524484863740322, 0.4928176664942323]


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_zero_weight_is_never_chosen(weights: list[float], position: float) -> None:
    """Whatever the rounding."""
    choice = ReaderChoice(weights)
    assert choice.possible == any(weights)
    if choice.possible:
        assert weights[choice.slot(position)] > 0


def test_picks_follow_weights_and_bias() -> None:
    """Two readers of one modality share its weight; an empty slot's goes to nobody."""
    weights = reader_weights(["a", "a", "b", None], {"a": 1.0, "b": 3.0}, [3.0, 1.0, 5.0, 1.0])
    assert weights == [0.75, 0.25, 3.0, 0.0]
    choice = ReaderChoice(weights)
    counts = Counter(choice.slot(uniform(1, 0, index)) for index in range(20_000))
    assert [counts[slot] / 20_000 for slot in range(4)] == pytest.approx([3 / 16, 1 / 16, 12 / 16, 0], abs=0.01)


@given(st.integers(1, 9), st.lists(st.integers(0, 12), max_size=4), st.integers(0, 12))
def test_each_stream_gets_one_rank(world_size: int, counts: list[int], playing: int) -> None:
    """None twice, none lost, and the ranks' shares differ by at most one; those that play come first."""
    modalities = [
        [StreamStart(f"{modality}.{index}", playing=index < playing) for index in range(count)]
        for modality, count in enumerate(counts)
    ]
    hands = deal(modalities, [0] * world_size)
    streams = sorted(start.stream for hand in hands for start in hand)
    assert streams == sorted(start.stream for starts in modalities for start in starts)
    assert max(map(len, hands)) - min(map(len, hands)) <= 1
    for hand in hands:
        assert hand == sorted(hand, key=lambda start: (start.stream.split(".")[0], not start.playing))


def test_slots_follow_weights() -> None:
    """Largest remainder, after one slot each."""
    assert Counter(apportion_slots(8, {"a": 3.0, "b": 1.0, "c": 0.0})) == {"a": 5, "b": 2, "c": 1}
    with pytest.raises(ConfigurationError, match=r"readers must be at least the number of modalities"):
        apportion_slots(2, {"a": 3.0, "b": 1.0, "c": 0.0})


def test_weights_hold_until_next_change() -> None:
    """The change is in force at its own step."""
    schedule = WeightSchedule(((1, {"a": 1.0}), (5, {"a": 2.0})))
    assert [schedule(step)["a"] for step in (1, 4, 5, 99)] == [1.0, 1.0, 2.0, 2.0]


@pytest.mark.parametrize("changes", [((2, {"a": 1.0}),), (), ((1, {}), (1, {})), (("1", {}),), (1,), ((1.5, {}),)])
def test_wrong_schedule_raises(changes: Any) -> None:
    """It begins at step 1 and goes on in the order of steps."""
    with pytest.raises(ConfigurationError, match=r"^changes must (begin at step 1|be pairs of a step and its weights)"):
        WeightSchedule(changes)


def test_later_weights_are_checked_early() -> None:
    """A modality that no stream has would otherwise raise at its step."""
    schedule = WeightSchedule(((1, {"a": 1.0}), (500, {"b": 1.0})))
    with pytest.raises(ConfigurationError, match="weights names the modality 'b', which no stream has"):
        StreamMixingDataset([Numbers("s", "a")], schedule, readers=1)


def test_resharding_keeps_queue_order() -> None:
    """Those that play go first, then the next of each rank; one at a queue's end would never come up otherwise."""
    names = [[f"{rank}{turn}" for turn in "pxyz"] for rank in range(2)]
    plans = [
        {"index": 0, "slots": [(own[0], 3), None], "queues": {"a": [(name, 0) for name in own[1:]]}, "finished": []}
        for own in names
    ]
    states = [
        {"rank": rank, "world_size": 2, "step": 1, "picks_in_step": 0, "streams": {"a": names}, "plan": plan}
        for rank, plan in enumerate(plans)
    ]
    streams = [name for own in names for name in own]
    job = Job(
        modalities=dict.fromkeys(streams, "a"),
        lengths=dict.fromkeys(streams, 9),
        seed=0,
        world_size=1,
        begins_again=True,
    )
    starts = reshard(job, 0, states).starts
    assert [start.stream for start in starts] == ["0p", "1p", "0x", "1x", "0y", "1y", "0z", "1z"]
