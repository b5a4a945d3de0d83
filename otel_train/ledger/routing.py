"""Decide which key goes to which rank, and how what comes back is in the caller's order again."""

from __future__ import annotations

from array import array

from otel_train.ledger.int_buffer import IntBuffer
from otel_train.native import core


def route(  # noqa: PLR0917  # as the core's
    keys: array[int],
    count: int,
    order: array[int],
    inverse: array[int],
    sent: array[int],
    sends: array[int],
) -> None:
    """Plan the route of keys to their owners: the key, taken as unsigned, modulo the number of ranks.

    Args:
        keys: The keys, [count].
        count: Number of keys.
        order: Receives the indices of the keys, sorted by owner; those of one owner stay in their order.
        inverse: Receives what brings them back: `sent[inverse]` is in the caller's order again.
        sent: Receives the keys in that order.
        sends: Receives the number of keys that go to each rank; its length is the number of ranks.
    """
    by_owner: list[list[int]] = [[] for _ in sends]
    for index, key in enumerate(keys[:count]):
        # Two's complement: a negative key stands for itself plus 2**64.
        by_owner[key % 2**64 % len(sends)].append(index)
    position = 0
    for rank, indices in enumerate(by_owner):
        sends[rank] = len(indices)
        for index in indices:
            order[position], inverse[index], sent[position] = index, position, keys[index]
            position += 1


_route = route if core is None else core.route


class Route:
    """The route of a call's keys to their owners and back.

    Args:
        world_size: Number of ranks.
    """

    def __init__(self, world_size: int) -> None:
        self.keys = IntBuffer()
        """Keys of this rank, in the caller's order."""
        self.order = IntBuffer()
        """Indices of the keys, sorted by owner; those of one owner stay in their order."""
        self.inverse = IntBuffer()
        """Indices that bring what was sent back into the caller's order."""
        self.sent = IntBuffer()
        """Keys sorted by owner."""
        self._sends = array("q", bytes(8 * world_size))
        self.sends: list[int] = self._sends.tolist()
        """Number of keys that go to each rank."""

    def plan(self) -> None:
        """Plan the route of the keys."""
        count = self.keys.count
        order, inverse, sent = (buffer.resize(count) for buffer in (self.order, self.inverse, self.sent))
        _route(self.keys.numbers, count, order, inverse, sent, self._sends)
        self.sends = self._sends.tolist()

    def has_keys_of(self, other: Route) -> bool:
        """Tell whether another call's keys are the same, in the same order."""
        count = self.keys.count
        own, others = memoryview(self.keys.numbers), memoryview(other.keys.numbers)
        return count == other.keys.count and own[:count] == others[:count]
