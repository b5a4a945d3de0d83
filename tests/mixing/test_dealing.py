"""The dealing of slots and streams: pure, stable, complete."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_train.exceptions import ConfigurationError
from otel_train.mixing.dealing import StreamStart, apportion_slots, deal


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


def test_modalities_are_dealt_on() -> None:
    """Each modality is dealt on from where the last one ended, so that four streams are enough for four ranks."""
    hands = deal([[StreamStart("a0")], [StreamStart("b0"), StreamStart("b1")], [StreamStart("c0")]], [0] * 4)
    assert [[start.stream for start in hand] for hand in hands] == [["a0"], ["b0"], ["b1"], ["c0"]]


def test_slots_follow_weights() -> None:
    """Largest remainder, after one slot each."""
    assert Counter(apportion_slots(8, {"a": 3.0, "b": 1.0, "c": 0.0})) == {"a": 5, "b": 2, "c": 1}
    with pytest.raises(ConfigurationError, match=r"readers must be at least the number of modalities"):
        apportion_slots(2, {"a": 3.0, "b": 1.0, "c": 0.0})
