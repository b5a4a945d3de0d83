"""Keep rows in the order of their last use, many uses at a time."""

from __future__ import annotations

import torch

_LOG_FACTOR = 4
"""Size of the log for each row: a longer one makes compaction rarer."""


class Recency:
    """The order of last use of rows 0 ... `rows` - 1, on the CPU.

    A log of uses: a use appends its row, and the row's former entry is no longer live. When the log is full, the live
    entries move to its beginning; at least 3 * `rows` uses lie between two such moves, so a use costs O(1) amortised.

    Args:
        rows: Number of rows.
    """

    def __init__(self, rows: int) -> None:
        size = _LOG_FACTOR * rows
        self._size = size
        self._log = torch.zeros(size, dtype=torch.int64, device="cpu")
        # One entry more, which nobody reads: the last is that of a row that is not in the order.
        self._live = torch.zeros(size + 1, dtype=torch.bool, device="cpu")
        self._position = torch.full((rows,), size, dtype=torch.int64, device="cpu")
        self._begin = self._end = 0

    def touch(self, rows: torch.Tensor) -> None:
        """Move rows to the new end, or put them there.

        Args:
            rows: int64 [n], distinct, in the order of their use.
        """
        count = len(rows)
        if self._end + count > self._size:
            self._compact()
        end = self._end + count
        self._live.index_fill_(0, self._position.index_select(0, rows), value=False)
        self._log[self._end : end] = rows
        self._live[self._end : end] = True
        self._position.index_copy_(0, rows, torch.arange(self._end, end, dtype=torch.int64, device="cpu"))
        self._end = end

    def drop(self, rows: torch.Tensor) -> None:
        """Take rows, int64 [n], out of the order."""
        self._live.index_fill_(0, self._position.index_select(0, rows), value=False)
        self._position.index_fill_(0, rows, self._size)

    def oldest(self, count: int) -> torch.Tensor:
        """Return the `count` least recently used rows, int64 [count], oldest first; there must be so many."""
        span = count
        while True:
            positions = self._live[self._begin : min(self._begin + span, self._end)].nonzero()[:count, 0]
            if len(positions) == count:
                break
            assert self._begin + span < self._end
            span *= 2
        rows = self._log[self._begin + positions]
        if count:
            # Nothing before the oldest is live, now or later.
            self._begin += int(positions[0])
        return rows

    def later(self, rows: torch.Tensor) -> torch.Tensor:
        """Return for each of the rows, int64 [n], how many rows were used after it; a pass over the log."""
        live = self._live[self._begin : self._end].cumsum(0)
        return live[-1:] - live[self._position[rows] - self._begin]

    def in_order(self) -> torch.Tensor:
        """Return all rows, int64 [held], oldest first; a pass over the log."""
        return self._log[self._begin + self._live[self._begin : self._end].nonzero()[:, 0]]

    def clear(self) -> None:
        """Take every row out of the order."""
        self._live.fill_(False)
        self._position.fill_(self._size)
        self._begin = self._end = 0

    def _compact(self) -> None:
        rows = self.in_order()
        self.clear()
        self.touch(rows)
