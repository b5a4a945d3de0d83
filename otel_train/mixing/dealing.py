"""Deal slots to modalities and streams to ranks: every stream to one rank, the same on each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.mixing.choice import splitmix64


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stream goes on."""

    stream: str
    position: int = 0
    """The next row."""
    playing: bool = False
    """Whether it is in a slot now: such streams come first when slots are filled."""


def apportion_slots(readers: int, weights: Mapping[str, float]) -> tuple[str, ...]:
    """Give each modality one slot, and the others by largest remainder of the weights.

    Raises:
        ConfigurationError: There are fewer slots than modalities.
    """
    if readers < len(weights):
        raise ConfigurationError(
            f"mixing.readers must be at least the number of modalities ({len(weights)}: {', '.join(weights)}), "
            f"got {readers}; raise it or name the slots' modalities in mixing.slots"
        )
    total = sum(weights.values())
    spare = readers - len(weights)
    exact = {modality: spare * weight / total for modality, weight in weights.items()}
    slots = {modality: 1 + int(share) for modality, share in exact.items()}
    by_remainder = sorted(exact, key=lambda modality: (int(exact[modality]) - exact[modality], modality))
    for modality in by_remainder[: readers - sum(slots.values())]:
        slots[modality] += 1
    return tuple(modality for modality, count in slots.items() for _ in range(count))


def shuffled(streams: Iterable[str], seed: int) -> list[str]:
    """Return the stream ids in an order that seed and ids alone decide."""
    return sorted(streams, key=lambda stream: (_rank_of(stream, seed), stream))


def _rank_of(stream: str, seed: int) -> int:
    value = splitmix64(seed)
    for byte in stream.encode():
        value = splitmix64(value ^ byte)
    return value


def deal(places: Sequence[Place], rank: int, world_size: int, first: int = 0) -> list[Place]:
    """Return the places of one modality that fall to `rank`, the playing ones first.

    Args:
        places: All places of the modality, in an order that is the same on each rank.
        rank: Who asks.
        world_size: Among how many they are dealt.
        first: The rank that gets the first one, so that modalities with few streams don't all begin with rank 0.
    """
    ordered = [place for place in places if place.playing] + [place for place in places if not place.playing]
    return ordered[(rank - first) % world_size :: world_size]


def merge_places(states: Sequence[Mapping[str, Any]]) -> tuple[list[Place], dict[str, int], set[str]]:
    """Join what all ranks of a saved job held.

    Returns:
        The places of the streams that go on, in the order in which they shall be dealt; the rank that held each; and
        the streams that are finished.

    Raises:
        StateMismatchError: A rank's state is missing or stands twice, or two ranks held one stream.
    """
    world_size = int(states[0]["world_size"])
    ranks = sorted(int(state["rank"]) for state in states)
    if ranks != list(range(world_size)):
        raise StateMismatchError(
            f"the saved job had {world_size} ranks, the states given are those of ranks {ranks}; give one of each"
        )
    # Those that wait keep their turn: the rings of ranks are joined place by place, not one behind the other.
    entries = sorted(
        (
            (not playing, turn, int(state["rank"]), Place(stream, position, playing))
            for state in states
            for playing, turn, (stream, position) in _entries(state["plan"])
        ),
        key=lambda entry: entry[:3],
    )
    owners: dict[str, int] = {}
    for _, _, rank, place in entries:
        if place.stream in owners:
            raise StateMismatchError(
                f"stream {place.stream!r} is held by ranks {owners[place.stream]} and {rank}; "
                "the states are not of one step"
            )
        owners[place.stream] = rank
    finished = {stream for state in states for stream in state["plan"]["finished"]}
    return [place for *_, place in entries], owners, finished


def _entries(plan: Mapping[str, Any]) -> Iterator[tuple[bool, int, tuple[str, int]]]:
    """Yield (whether it plays, its turn, (stream, position)) of what a rank held."""
    for entry in plan["slots"]:
        if entry is not None:
            yield True, 0, entry
    for queue in plan["queues"].values():
        for turn, entry in enumerate(queue):
            yield False, turn, entry
