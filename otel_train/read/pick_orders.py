"""Tell the ranks that draw in one order, from the signs of their orders' hashes in the records of ranks."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence

from otel_train.catalogue import Layout, rows

COMPARED = 16
"""Records that are compared: with four signs in each, ranks that differ agree with a probability of 2**-64."""
_MASK = (1 << COMPARED * rows.ORDER_SIGNS.size) - 1


class PickOrders:
    """Signs of the ranks' orders, by step."""

    def __init__(self) -> None:
        self._signs: dict[int, dict[int, int]] = {}
        """By rank and step, a bit for each sign."""

    def add(self, rank: int, step: int, layout: Layout, sums: Sequence[float]) -> None:
        """Take a rank's record; without picks it tells nothing."""
        start, count = (layout.offsets.get(measure.name) for measure in (rows.ORDER_SIGNS, rows.ORDER_COUNT))
        if start is None or count is None or not sums[count]:
            return
        self._signs.setdefault(rank, {})[step] = bits_of(sums[start : start + rows.ORDER_SIGNS.size])

    def add_columns(self, rank: int, steps: Iterable[int], bits: Iterable[int]) -> None:
        """Take the bits of all of a rank's records that have picks, by `bits_of`."""
        self._signs[rank] = dict(zip(steps, bits, strict=True))

    def keep(self, newest: int) -> None:
        """Forget all but so many of the newest steps of each rank."""
        for by_step in self._signs.values():
            for step in sorted(by_step)[:-newest]:
                del by_step[step]

    def compare(self) -> OrderGroups:
        """Return which ranks draw alike, step by step."""
        common = sorted(set.intersection(*map(set, self._signs.values()))) if self._signs else []
        keys: dict[int, array[int]] = {}
        for rank, by_step in self._signs.items():
            key, column = 0, array("Q")
            for step in common:
                key = (key << rows.ORDER_SIGNS.size | by_step[step]) & _MASK
                column.append(key)
            keys[rank] = column
        return OrderGroups(common, keys)


def bits_of(signs: Sequence[float]) -> int:
    """Return a record's signs as a number, a bit for each."""
    bits = 0
    for sign in signs:
        bits = bits << 1 | (sign > 0)
    return bits


class OrderGroups:
    """Groups of ranks that draw alike.

    Args:
        steps: The steps that all ranks have.
        keys: For each rank and each of them the signs up to it, as one number.
    """

    def __init__(self, steps: Sequence[int], keys: dict[int, array[int]]) -> None:
        self._steps = steps
        self._keys = keys

    def key(self, rank: int, step: int) -> int | None:
        """Return a number that the ranks which draw like this one at a step have in common; None where it is not known.

        Of the first steps it is that of the `COMPARED` first ones together: few signs agree by chance.
        """
        index = min(max(bisect_right(self._steps, step), COMPARED), len(self._steps)) - 1
        return self._keys[rank][index] if rank in self._keys and index >= 0 else None

    def all_differ(self, ranks: Collection[int]) -> bool:
        """Tell whether no two of these ranks draw alike at any step."""
        columns = [self._keys[rank][min(COMPARED, len(self._steps)) - 1 :] for rank in ranks if rank in self._keys]
        return all(len(set(row)) == len(row) for row in zip(*columns, strict=True))

    @property
    def newest(self) -> tuple[tuple[int, ...], ...]:
        """The ranks of each group at the newest step, in the order of ranks; a rank that is like no other is one."""
        groups: dict[int, list[int]] = {}
        for rank, column in sorted(self._keys.items()):
            if column:
                groups.setdefault(column[-1], []).append(rank)
        return tuple(map(tuple, groups.values()))
