"""A sink that keeps rows in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from otel_train.bridge.inbox import SealedRow
from otel_train.bridge.wandb_sink import Opened


class MemorySink:
    """A sink whose rows are durable at once; counts opens."""

    patience = 30.0

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()
        self.rows: list[tuple[str, int]] = []
        self.open_now: set[str] = set()
        self.most = 0
        self._fresh: dict[str, list[int]] = {}

    def prepare(self) -> None:
        """Do nothing."""

    def open(self, run_id: str, _: int | None) -> Opened:
        """Count it."""
        self.opened[run_id] += 1
        self.open_now.add(run_id)
        self.most = max(self.most, len(self.open_now))
        self._fresh[run_id] = []
        return Opened(0, ())

    def write(self, run_id: str, sealed: SealedRow) -> None:
        """Keep a row."""
        self.rows.append((run_id, sealed.ordinal))
        self._fresh[run_id].append(sealed.ordinal)

    def durable(self, run_id: str) -> Iterable[int]:
        """Return the ordinals written since the last call."""
        fresh, self._fresh[run_id] = self._fresh[run_id], []
        return fresh

    def close(self, run_id: str) -> Iterable[int]:
        """Remove it from the open ones."""
        self.open_now.discard(run_id)
        return self._fresh.pop(run_id, [])

    def reset(self) -> None:
        """Close all."""
        self.open_now.clear()

    def abort(self) -> None:
        """Never hang."""
