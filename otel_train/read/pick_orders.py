"""Tell the ranks that draw in one order, from the signs of their orders' hashes in the records of ranks."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import compress

from otel_train.catalogue import Layout, rows
from otel_train.native import core
from otel_train.read.column_values import beside

COMPARED = 16
"""Records that are compared: with four signs in each, ranks that differ agree with a probability of 2**-64."""


class PickOrders:
    """Signs of the ranks' orders, by step."""

    def __init__(self) -> None:
        self._signs: dict[int, dict[int, int]] = {}
        """By rank and step, a bit for each sign."""
        self._columns: dict[int, tuple[array[int], bytes]] = {}
        """Steps and bits of ranks that were taken at once."""

    def add(self, rank: int, step: int, layout: Layout, sums: Sequence[float]) -> None:
        """Take a rank's record; without picks it tells nothing."""
        start, count = (layout.offsets.get(measure.name) for measure in (rows.ORDER_SIGNS, rows.ORDER_COUNT))
        if start is None or count is None or not sums[count]:
            return
        bits = 0
        for sign in sums[start : start + rows.ORDER_SIGNS.size]:
            bits = bits << 1 | (sign > 0)
        self._signs.setdefault(rank, {})[step] = bits

    def add_columns(self, rank: int, steps: array[int], bits: bytes) -> None:
        """Take the bits of all of a rank's records that have picks, by `bits_of`; their steps grow."""
        self._columns[rank] = steps, bits

    def keep(self, newest: int) -> None:
        """Forget all but so many of the newest steps of each rank."""
        for by_step in self._signs.values():
            for step in sorted(by_step)[:-newest]:
                del by_step[step]

    def compare(self) -> OrderGroups:
        """Return which ranks draw alike, step by step."""
        columns = self._columns | {
            rank: (array("q", sorted(by_step)), bytes(bits for _, bits in sorted(by_step.items())))
            for rank, by_step in self._signs.items()
        }
        if not columns:
            return OrderGroups([], {})
        common, _ = next(iter(columns.values()))
        if all(steps == common for steps, _ in columns.values()):
            return OrderGroups(common, {rank: bits for rank, (_, bits) in columns.items()})
        both = set(common).intersection(*(steps for steps, _ in columns.values()))
        return OrderGroups(
            array("q", sorted(both)),
            {rank: bytes(compress(bits, map(both.__contains__, steps))) for rank, (steps, bits) in columns.items()},
        )


def bits_of(signs: Sequence[array[float]]) -> bytes:
    """Return each record's signs as a byte, a bit for each that is positive.

    Args:
        signs: float64 [records] for each sign, 8 of them at most.
    """
    if core is not None:
        out = bytearray(len(signs[0]))
        core.sign_bits(len(out), len(signs), beside(signs), out)
        return bytes(out)
    joined = 0
    for column in signs:
        joined = joined << 1 | int.from_bytes(bytes(map((0.0).__lt__, column)), "little")
    return joined.to_bytes(len(signs[0]), "little")


class OrderGroups:
    """Groups of ranks that draw alike.

    Args:
        steps: The steps that all ranks have.
        bits: For each rank the bits of its signs at each of them.
    """

    def __init__(self, steps: Sequence[int], bits: dict[int, bytes]) -> None:
        self._steps = steps
        self._bits = bits

    def key(self, rank: int, step: int) -> bytes | None:
        """Return what the ranks which draw like this one at a step have in common; None where it is not known.

        Of the first steps it is that of the `COMPARED` first ones together: few signs agree by chance.
        """
        end = min(max(bisect_right(self._steps, step), COMPARED), len(self._steps))
        return self._bits[rank][max(0, end - COMPARED) : end] if rank in self._bits and end else None

    def all_differ(self, ranks: Collection[int]) -> bool:
        """Tell whether no two of these ranks draw alike at any step."""
        bits, steps = [self._bits[rank] for rank in ranks if rank in self._bits], len(self._steps)

        def differ(width: int, every: int) -> bool:
            begins = range(0, steps - width + 1, every)
            return all(len({own[begin : begin + width] for own in bits}) == len(bits) for begin in begins)

        # Ranks that agree over `COMPARED` records do so over one of these halves; by chance some agree over a half.
        half = COMPARED // 2
        return not steps or (steps >= half and differ(half, half)) or differ(min(COMPARED, steps), 1)

    @property
    def newest(self) -> tuple[tuple[int, ...], ...]:
        """The ranks of each group at the newest step, in the order of ranks; a rank that is like no other is one."""
        groups: dict[bytes, list[int]] = {}
        for rank, bits in sorted(self._bits.items()):
            if bits:
                groups.setdefault(bits[-COMPARED:], []).append(rank)
        return tuple(map(tuple, groups.values()))
