"""Remember which runs have failed, until wandb is told at their finish."""

from __future__ import annotations

from collections.abc import Iterable

from otel_train.bridge.inbox_store import Store

MOST_RUNS = 4096
"""Runs that are remembered; the ones that failed first are forgotten beyond that."""


class FailedAttempts:
    """Knows of which attempts a rank's session has failed; in memory only.

    Args:
        store: The inbox's database, which knows what attempts a run has.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest: dict[str, int] = {}
        """The newest attempt that has failed, by run."""

    def note(self, failed: Iterable[tuple[str, int]]) -> None:
        """Note run and attempt of ranks whose session has failed."""
        with self._store.lock:
            for run_id, attempt in failed:
                self._newest[run_id] = max(attempt, self._newest.pop(run_id, 0))
                if len(self._newest) > MOST_RUNS:
                    del self._newest[next(iter(self._newest))]

    def __contains__(self, run_id: str) -> bool:
        """Tell whether a run has failed: no attempt has begun since a rank of one failed."""
        with self._store.lock:
            if run_id not in self._newest:
                return False
            (newest,) = self._store.connection.execute(
                "SELECT coalesce(max(attempt), 0) FROM attempts WHERE run = ?", (self._store.run_key(run_id),)
            ).fetchone()
            return self._newest[run_id] >= int(newest)
