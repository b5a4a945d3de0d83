"""Deal slots to modalities and streams to ranks: every stream to one rank, the same on each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


def merge_places(states: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Place], dict[str, int], set[str]]:
    """Join what all ranks of a saved job held.

    Returns:
        The place of each stream that goes on, the rank that held it, and the streams that are finished.

    Raises:
        StateMismatchError: A rank's state is missing or stands twice, or two ranks held one stream.
    """
    world_size = int(states[0]["world_size"])
    ranks = sorted(int(state["rank"]) for state in states)
    if ranks != list(range(world_size)):
        raise StateMismatchError(
            f"the saved job had {world_size} ranks, the states given are those of ranks {ranks}; give one of each"
        )
    places: dict[str, Place] = {}
    owners: dict[str, int] = {}
    finished: set[str] = set()
    for state in states:
        finished.update(state["plan"]["finished"])
        playing = [entry for entry in state["plan"]["slots"] if entry is not None]
        waiting = [entry for queue in state["plan"]["queues"].values() for entry in queue]
        for entries, in_slot in ((playing, True), (waiting, False)):
            for stream, position in entries:
                if stream in places:
                    raise StateMismatchError(
                        f"stream {stream!r} is held by ranks {owners[stream]} and {state['rank']}; "
                        "the states are not of one step"
                    )
                places[stream] = Place(stream, position, in_slot)
                owners[stream] = int(state["rank"])
    return places, owners, finished
