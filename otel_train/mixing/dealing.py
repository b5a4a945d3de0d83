"""Deal slots to modalities and streams to ranks: every stream to one rank, the same on each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace

from otel_train.exceptions import ConfigurationError
from otel_train.splitmix import mix


@dataclass(frozen=True, slots=True)
class StreamStart:
    """The row from which a stream is read on."""

    stream: str
    position: int = 0
    """The next row."""
    playing: bool = False
    """Whether it is in a slot now: such streams come first when slots are filled."""
    slot: int | None = None
    """The slot that it is in on this rank, and stays in where there still is one of its modality."""


def apportion_slots(readers: int, weights: Mapping[str, float]) -> tuple[str, ...]:
    """Give each modality one slot, and the others by largest remainder of the weights.

    Args:
        readers: Number of slots.
        weights: The weight of each modality.

    Raises:
        ConfigurationError: There are fewer slots than modalities.
    """
    if readers < len(weights):
        raise ConfigurationError(
            f"readers must be at least the number of modalities ({len(weights)}: {', '.join(weights)}), "
            f"got {readers}; raise it or name the slots' modalities in slots"
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
    value = mix(seed)
    for byte in stream.encode("utf-8", "surrogatepass"):
        value = mix(value ^ byte)
    return value


def deal(modalities: Iterable[Sequence[StreamStart]], loads: Sequence[int]) -> list[list[StreamStart]]:
    """Deal streams to ranks: each goes to the rank that has the fewest, the first one of those.

    Of every modality the streams that play come first, so that each rank gets its share of them; and the next modality
    is dealt on from where the last one ended, so that ranks differ by one stream at most.

    Args:
        modalities: For each modality all of its streams, in an order that is the same on each rank.
        loads: Number of streams that each rank has already.

    Returns:
        The streams of each rank.
    """
    hands: list[list[StreamStart]] = [[] for _ in loads]
    fewest = [(load, rank) for rank, load in enumerate(loads)]
    heapify(fewest)
    for starts in modalities:
        for start in sorted(starts, key=lambda start: not start.playing):
            load, rank = fewest[0]
            heapreplace(fewest, (load + 1, rank))
            hands[rank].append(start)
    return hands


def check_every_rank_reads(
    hands: Sequence[Sequence[str]], slots: Sequence[str], bias: Sequence[float], weights: Mapping[str, float]
) -> None:
    """Check that each rank has a stream that it can read: one whose modality has a weight and a slot.

    A rank without one would have an empty loader, and its peers would wait for it for ever. Every rank knows the
    streams of all, so every rank raises.

    Args:
        hands: The modality of each stream of each rank.
        slots: The modality of each slot.
        bias: The factor of each slot.
        weights: The weight of each modality.

    Raises:
        ConfigurationError: A rank has none.
    """
    read = {modality for modality, factor in zip(slots, bias, strict=True) if factor > 0 and weights[modality] > 0}
    empty = [rank for rank, modalities in enumerate(hands) if read.isdisjoint(modalities)]
    if empty:
        counts = Counter(modality for modalities in hands for modality in modalities)
        streams = ", ".join(f"{count} of {modality!r}" for modality, count in sorted(counts.items())) or "none"
        raise ConfigurationError(
            f"rank {empty[0]} of {len(hands)} gets no stream that it can read ({len(empty)} of the ranks): the "
            f"streams are {streams}, those with a weight and a slot {', '.join(map(repr, sorted(read))) or 'none'}; "
            "give at least one such stream for each rank, or use fewer ranks"
        )
