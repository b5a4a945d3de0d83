"""The choice of readers and the dealing of streams: pure, stable, complete."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_train.exceptions import ConfigurationError
from otel_train.mixing.choice import ReaderChoice, reader_weights, uniform
from otel_train.mixing.dealing import Place, apportion_slots, deal, merge_places
from otel_train.mixing.weights import WeightSchedule


def test_the_numbers_of_a_pick_never_change() -> None:
    """A change of these numbers changes every job's data order."""
    assert [uniform(0, 0, 0), uniform(7, 3, 100_000)] == [0.6524484863740322, 0.4928176664942323]


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_a_slot_without_weight_is_never_chosen(weights: list[float], position: float) -> None:
    """Whatever the rounding."""
    choice = ReaderChoice(weights)
    assert choice.possible == any(weights)
    if choice.possible:
        assert weights[choice.slot(position)] > 0


def test_picks_follow_the_weights_of_modalities_and_the_bias_within_one() -> None:
    """Two readers of one modality share its weight; an empty slot's goes to nobody."""
    weights = reader_weights(["a", "a", "b", None], {"a": 1.0, "b": 3.0}, [3.0, 1.0, 5.0, 1.0])
    assert weights == [0.75, 0.25, 3.0, 0.0]
    choice = ReaderChoice(weights)
    counts = Counter(choice.slot(uniform(1, 0, index)) for index in range(20_000))
    assert [counts[slot] / 20_000 for slot in range(4)] == pytest.approx([3 / 16, 1 / 16, 12 / 16, 0], abs=0.01)


@given(st.integers(1, 9), st.integers(0, 40), st.integers(0, 8), st.integers(0, 40))
def test_every_stream_is_dealt_to_one_rank(world_size: int, streams: int, first: int, playing: int) -> None:
    """None twice, none lost, and the ranks' shares differ by at most one; those that play come first."""
    places = [Place(str(index), playing=index < playing) for index in range(streams)]
    hands = [deal(places, rank, world_size, first) for rank in range(world_size)]
    assert sorted(place.stream for hand in hands for place in hand) == sorted(place.stream for place in places)
    assert max(map(len, hands)) - min(map(len, hands)) <= 1
    assert all(hand == sorted(hand, key=lambda place: not place.playing) for hand in hands)


def test_slots_go_by_weight_and_every_modality_has_one() -> None:
    """Largest remainder, after one slot each."""
    assert Counter(apportion_slots(8, {"a": 3.0, "b": 1.0, "c": 0.0})) == {"a": 5, "b": 2, "c": 1}
    with pytest.raises(ConfigurationError, match=r"mixing\.readers must be at least the number of modalities"):
        apportion_slots(2, {"a": 3.0, "b": 1.0, "c": 0.0})


def test_a_schedule_holds_each_weight_until_the_next() -> None:
    """The change is in force at its own step."""
    schedule = WeightSchedule(((1, {"a": 1.0}), (5, {"a": 2.0})))
    assert [schedule(step)["a"] for step in (1, 4, 5, 99)] == [1.0, 1.0, 2.0, 2.0]
    with pytest.raises(ConfigurationError, match=r"must begin at step 1"):
        WeightSchedule(((2, {"a": 1.0}),))


def test_streams_that_wait_keep_their_turn_when_a_job_is_resharded() -> None:
    """Those that play go first, then the next of each rank; one at a queue's end would never come up otherwise."""
    plans = [
        {"slots": [(f"{rank}p", 3), None], "queues": {"a": [(f"{rank}{turn}", 0) for turn in "xyz"]}, "finished": []}
        for rank in range(2)
    ]
    states = [{"rank": rank, "world_size": 2, "plan": plan} for rank, plan in enumerate(plans)]
    places, _, _ = merge_places(states)
    assert [place.stream for place in places] == ["0p", "1p", "0x", "1x", "0y", "1y", "0z", "1z"]
