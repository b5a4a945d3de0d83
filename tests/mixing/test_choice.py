"""The choice of readers: pure and stable."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_train.mixing.choice import ReaderChoice, reader_weights, uniform


def test_pick_numbers_never_change() -> None:
    """A change of these numbers changes every job's data order."""
    assert [uniform(0, 0, 0), uniform(7, 3, 100_000)] == [0.6524484863740322, 0.4928176664942323]


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_zero_weight_is_never_chosen(weights: list[float], position: float) -> None:
    """Rounding never leads to a slot of weight 0."""
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
