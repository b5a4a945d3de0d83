"""Add up the tags of a batch: rows and tokens by source, switches, and passes; few by Python, many by torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from otel_train.mixing.tags import CODE_BITS, CODE_SHIFT, MAX_TOKENS, REPEAT_BITS, REPEAT_SHIFT, REPEATS
from otel_train.torch_modes import outside_modes

FEW = 128
"""Rows up to which a loop in Python costs less than a dozen operations of torch."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the rows of a batch, by source."""

    indices: torch.Tensor | list[int]
    """Index of each row's source, in order; rows of unknown sources are left out."""
    counts: list[int]
    """Rows of each source."""
    tokens: list[float]
    """Tokens of each source."""
    last: list[int]
    """Position in `indices` of each source's last row, -1 without one."""
    ends: tuple[int, int]
    """Index of the first row's source and of the last one's; -1 without rows."""
    switches: int
    """Rows whose source differs from that of the row before."""
    passes: list[int]
    """By how many passes each source is ahead of where it was; 0 without rows."""
    unknown: int
    """Rows of sources that the meter does not have."""

    @property
    def rows(self) -> int:
        """Number of rows that count."""
        return sum(self.counts)


class Tallier:
    """Adds up tags for a fixed set of sources.

    Args:
        codes: The code of each source, all different.
    """

    def __init__(self, codes: Sequence[int]) -> None:
        self._codes = list(codes)
        self._index: Mapping[int, int] = {code: index for index, code in enumerate(codes)}
        self._sources = len(codes)
        self._shift, self._mask, self._table = _index_table(codes)
        self._passes: list[int] | None = None
        self._expected = self._table
        """The upper bits of a tag of each source in its present pass."""

    @property
    def tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Two tables, int64 on the CPU, for `indices_of`: of the sources' indices, and of their codes."""
        return self._table, torch.tensor(self._codes, dtype=torch.int64, device="cpu")

    @outside_modes
    def indices_of(self, words: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the index of each row's source, int64 [n] on the device of the tags: nothing here waits for a GPU.

        Args:
            words: int64 [n], the tags in the order of the rows, on any device.
            tables: `tables`, on that device.

        Returns:
            -1 for a row of an unknown source or without a tag, -2 for padding.
        """
        table, codes = tables
        indices = table.index_select(0, (words >> self._shift + REPEAT_SHIFT) & self._mask)
        unknown = codes.index_select(0, indices) != words >> CODE_SHIFT
        return indices.masked_fill_(unknown, -1).masked_fill_(words < 0, -2)

    @outside_modes
    def add_up(self, words: torch.Tensor, passes: Sequence[int]) -> Tally:
        """Return the sums of a batch.

        Args:
            words: int64 [n] on the CPU, the tags in the order of the rows; negative ones are padding.
            passes: The pass that each source is in, modulo 256; negative where none of its rows has been seen.
        """
        if len(words) > FEW:
            return self.add_up_many(words, passes)
        return self.add_up_few(words.tolist(), passes)

    def add_up_few(self, words: Sequence[int], passes: Sequence[int]) -> Tally:
        """Return the sums of a batch, by a loop."""
        counts, tokens = [0] * self._sources, [0.0] * self._sources
        last, ahead = [-1] * self._sources, [0] * self._sources
        indices: list[int] = []
        switches = unknown = 0
        previous = -1
        for word in words:
            if word < 0:
                continue
            index = self._index.get(word >> CODE_SHIFT, -1)
            if index < 0:
                unknown += 1
                continue
            counts[index] += 1
            tokens[index] += word & MAX_TOKENS
            last[index] = len(indices)
            indices.append(index)
            switches += index != previous
            previous = index
            repeat, current = (word >> REPEAT_SHIFT) % REPEATS, passes[index]
            if repeat != current:
                ahead[index] = max(ahead[index], _ahead(repeat, current))
        return Tally(
            indices=indices,
            counts=counts,
            tokens=tokens,
            last=last,
            ends=(indices[0], indices[-1]) if indices else (-1, -1),
            switches=max(0, switches - 1),
            passes=ahead,
            unknown=unknown,
        )

    def add_up_many(self, words: torch.Tensor, passes: Sequence[int]) -> Tally:
        """Return the sums of a batch, by operations of torch."""
        if passes != self._passes:
            self._passes = list(passes)
            expected = [code * REPEATS + max(0, passed) for code, passed in zip(self._codes, passes, strict=True)]
            self._expected = torch.tensor(expected, dtype=torch.int64, device="cpu")
        heads = words >> REPEAT_SHIFT
        indices = self._table.index_select(0, (heads >> self._shift) & self._mask)
        unknown, ahead = 0, [0] * self._sources
        if not torch.equal(self._expected.index_select(0, indices), heads):
            right = self._expected.index_select(0, indices) // REPEATS == heads // REPEATS
            unknown = int(((words >= 0) & ~right).sum())
            words, indices = words[right], indices[right]
            ahead = self._passes_ahead(words, indices)
        rows = len(indices)
        positions = torch.arange(rows, dtype=torch.int64, device="cpu")
        last = torch.full((self._sources,), -1, dtype=torch.int64, device="cpu")
        tokens = (words & MAX_TOKENS).to(torch.float64)
        return Tally(
            indices=indices,
            counts=torch.bincount(indices, minlength=self._sources).tolist(),
            tokens=torch.bincount(indices, weights=tokens, minlength=self._sources).tolist(),
            last=last.scatter_reduce_(0, indices, positions, "amax").tolist(),
            ends=(int(indices[0]), int(indices[-1])) if rows else (-1, -1),
            switches=int(torch.count_nonzero(indices[1:] != indices[:-1])),
            passes=ahead,
            unknown=unknown,
        )

    def _passes_ahead(self, words: torch.Tensor, indices: torch.Tensor) -> list[int]:
        repeats = (words >> REPEAT_SHIFT) % REPEATS
        current = torch.tensor(self._passes, dtype=torch.int64, device="cpu").index_select(0, indices)
        forward = (repeats - current + REPEATS // 2) % REPEATS - REPEATS // 2
        forward = torch.where(current < 0, repeats, forward)
        none = torch.zeros(self._sources, dtype=torch.int64, device="cpu")
        ahead: list[int] = none.scatter_reduce_(0, indices, forward, "amax").tolist()
        return ahead


@outside_modes
def _index_table(codes: Sequence[int]) -> tuple[int, int, torch.Tensor]:
    """Return a shift, a mask of n bits, and a table of 2**n entries, int64, in which they find a tag's source's index.

    The bits are those above the shift of a tag without its tokens; the table is the smallest that separates all codes.
    A search in sorted codes takes as long, and starts threads for a few hundred rows.
    """
    for bits in range(CODE_BITS + 1):
        for shift in range(CODE_BITS - bits + 1):
            places = [(code >> shift) & ((1 << bits) - 1) for code in codes]
            if len(set(places)) == len(codes):
                table = torch.zeros(1 << bits, dtype=torch.int64, device="cpu")
                indices = torch.tensor(places, dtype=torch.int64, device="cpu")
                table[indices] = torch.arange(len(codes), dtype=torch.int64, device="cpu")
                return shift + REPEAT_BITS, (1 << bits) - 1, table
    raise AssertionError("codes are all different")


def _ahead(repeat: int, current: int) -> int:
    """Return by how many passes one is ahead of another, both modulo 256: at most half of that either way."""
    return repeat if current < 0 else (repeat - current + REPEATS // 2) % REPEATS - REPEATS // 2
