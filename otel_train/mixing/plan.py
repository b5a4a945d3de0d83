"""The plan of one rank's picks: which slot, which stream, which row. Pure: it reads no data and knows no process."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from otel_train.exceptions import ConfigurationError
from otel_train.mixing.choice import ReaderChoice, reader_weights, uniform
from otel_train.mixing.dealing import StreamStart


class AtEnd(StrEnum):
    """Rule for a slot whose stream runs out.

    Examples:
        >>> from otel_train.mixing import AtEnd
        >>> AtEnd("cycle") is AtEnd.CYCLE                      # either is fine as an argument
        True
    """

    NEXT = "next"
    """Take the next stream of its modality; stay empty when there is none."""
    CYCLE = "cycle"
    """Take the next stream of its modality; the one that ran out begins again when its turn comes."""
    AGAIN = "again"
    """Begin the same stream again."""


def checked_at_end(rule: AtEnd | str) -> AtEnd:
    """Return the rule of this name.

    Raises:
        ConfigurationError: There is none.
    """
    try:
        return AtEnd(rule)
    except ValueError:
        raise ConfigurationError(f"at_end must be one of {', '.join(AtEnd)}, got {rule!r}") from None


@dataclass(frozen=True, slots=True)
class Pick:
    """One row that is to be read, and its effect on the slot."""

    index: int
    """The rank's running number of picks."""
    slot: int
    stream: str
    position: int
    """The row of the stream."""
    successor: str | None
    """The stream that takes the slot after this row; None while the stream goes on."""
    ends: bool
    """Whether this row is its stream's last."""


class MixPlan:
    """The state of one rank's slots and queues, moved on by one pick at a time.

    Args:
        lengths: Rows of each stream.
        modalities: Modality of each stream.
        slots: Modality of each slot.
        bias: A factor for each slot, see `choice.reader_weights`.
        seed: The seed of the choice.
        rank: The rank whose picks these are.
        at_end: Rule for a slot whose stream runs out.
    """

    def __init__(
        self,
        lengths: Mapping[str, int],
        modalities: Mapping[str, str],
        slots: Sequence[str],
        bias: Sequence[float],
        *,
        seed: int,
        rank: int,
        at_end: AtEnd,
    ) -> None:
        self.lengths = lengths
        self.modalities = modalities
        self.slots = tuple(slots)
        self.bias = tuple(bias)
        self.seed = seed
        self.rank = rank
        self.at_end = at_end
        self.index = 0
        self.playing: list[tuple[str, int] | None] = [None] * len(self.slots)
        self.queues: dict[str, deque[tuple[str, int]]] = {modality: deque() for modality in dict.fromkeys(slots)}
        self.finished: list[str] = []
        self._weights: dict[str, float] = {}
        self._choice: ReaderChoice | None = None

    def fill(self, starts: Sequence[StreamStart]) -> None:
        """Put streams into slots of their modality, and those that find none free into its queue.

        Args:
            starts: The streams of this rank, in the order in which they shall be read. One that has a slot gets it
                where that is free and of its modality.
        """
        waiting = []
        for start in starts:
            modality = self.modalities[start.stream]
            slot = start.slot
            if slot is not None and slot < len(self.slots) and self._is_free(slot, modality):
                self.playing[slot] = (start.stream, start.position)
            else:
                waiting.append(start)
        for start in waiting:
            modality = self.modalities[start.stream]
            free = (slot for slot in range(len(self.slots)) if self._is_free(slot, modality))
            slot = next(free, None)
            if slot is not None:
                self.playing[slot] = (start.stream, start.position)
            else:
                self.queues.setdefault(modality, deque()).append((start.stream, start.position))
        self._choice = None

    def _is_free(self, slot: int, modality: str) -> bool:
        return self.playing[slot] is None and self.slots[slot] == modality

    def set_weights(self, weights: dict[str, float]) -> None:
        """Use these weights by modality from the next pick on."""
        if weights != self._weights:
            self._weights = weights
            self._choice = None

    def next(self) -> Pick | None:
        """Make the next pick, or return None when no reader with a weight has data left."""
        if self._choice is None:
            held = [
                None if entry is None else modality for modality, entry in zip(self.slots, self.playing, strict=True)
            ]
            self._choice = ReaderChoice(reader_weights(held, self._weights, self.bias))
        if not self._choice.possible:
            return None
        slot = self._choice.slot(uniform(self.seed, self.rank, self.index))
        entry = self.playing[slot]
        assert entry is not None, "a slot without a stream has weight 0"
        stream, position = entry
        ends = position + 1 >= self.lengths[stream]
        successor = None
        if ends:
            successor = self._replace(slot, stream)
        else:
            self.playing[slot] = (stream, position + 1)
        pick = Pick(self.index, slot, stream, position, successor, ends)
        self.index += 1
        return pick

    def _replace(self, slot: int, stream: str) -> str | None:
        queue = self.queues[self.slots[slot]]
        if self.at_end is AtEnd.AGAIN:
            self.playing[slot] = (stream, 0)
            return stream
        if self.at_end is AtEnd.CYCLE:
            queue.append((stream, 0))
        else:
            self.finished.append(stream)
        self.playing[slot] = queue.popleft() if queue else None
        entry = self.playing[slot]
        if entry is None:
            self._choice = None
            return None
        return entry[0]

    def state_dict(self) -> dict[str, Any]:
        """Return slots, queues and the running number of picks."""
        return {
            "index": self.index,
            "slots": list(self.playing),
            "queues": {modality: list(queue) for modality, queue in self.queues.items()},
            "finished": list(self.finished),
        }

    def copy(self) -> MixPlan:
        """Return a plan of its own that goes on from here."""
        plan = MixPlan(
            self.lengths, self.modalities, self.slots, self.bias, seed=self.seed, rank=self.rank, at_end=self.at_end
        )
        plan.index = self.index
        plan.playing = list(self.playing)
        plan.queues = {modality: deque(queue) for modality, queue in self.queues.items()}
        plan.finished = list(self.finished)
        plan.set_weights(self._weights)
        return plan
