"""Read a bridge's inbox: what arrived, what was made of it and what is in wandb; also while a bridge runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from otel_train.bridge.errors import BridgeError
from otel_train.bridge.inbox_store import INBOX_FILE, Store, build_rows
from otel_train.bridge.wandb_rows import Row
from otel_train.paths import absolute


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step that wandb does not have durably, as the inbox has it."""

    attempt: int
    step: int | None
    row: Row
    """Its row or, for a step that is not sealed yet, the one it would get now."""
    ordinal: int | None
    """Index of the row in its run, which is wandb's `_step`; None until the step is sealed."""
    time_ns: int


class InboxReader:
    """Reads an inbox; safe beside the bridge that writes it.

    Args:
        store: Its database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def open(cls, state_dir: str | Path) -> InboxReader:
        """Return a reader of the inbox in `state_dir`, also while a bridge runs on it.

        Raises:
            BridgeError: There is none.
        """
        return cls(Store.open_readonly(Path(state_dir)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        self._store.close()

    def run_ids(self) -> list[str]:
        """Return the ids of all runs, in the order of their first arrival."""
        with self._store.lock:
            return [run_id for (run_id,) in self._store.connection.execute("SELECT run_id FROM runs ORDER BY id")]

    def delivered_steps(self, run_id: str) -> int:
        """Return how many rows of a run wandb has; 0 for an unknown run."""
        with self._store.lock:
            row = self._store.connection.execute("SELECT delivered FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return row[0] if row else 0

    def backlog(self) -> tuple[int, int | None]:
        """Return how many steps wait for their row in wandb, and when the first of them came (None without any)."""
        with self._store.lock:
            count, first_ns = self._store.connection.execute(
                "SELECT count(*), min(first_ns) FROM steps WHERE arrived > 0"
            ).fetchone()
        return count, first_ns

    def rows(self, run_id: str) -> list[StepRow]:
        """Return the steps of a run that wandb lacks in the order of their rows, those without one yet at the end."""
        with self._store.lock:
            key = self._store.run_key(run_id)
            if key is None:
                return []
            sealed = self._store.connection.execute(
                "SELECT attempt, steps.step, row, ordinal, time_ns FROM steps"
                " JOIN rows ON rows.step = steps.id WHERE run = ? AND ordinal IS NOT NULL ORDER BY ordinal",
                (key,),
            )
            rows = [
                StepRow(attempt, step, json.loads(row), ordinal, time_ns)
                for attempt, step, row, ordinal, time_ns in sealed
            ]
            return [*rows, *self._pending_rows(key)]

    def _pending_rows(self, key: int) -> Iterator[StepRow]:
        pending = self._store.pending(key)
        attempts = {step.attempt for step in pending}
        newest = {attempt: progress.newest_ns for attempt, progress in self._store.attempts(key, attempts).items()}
        totals = {attempt: self._store.totals(key, attempt) for attempt in attempts}
        for step, row, _ in build_rows(((step, self._store.arrived(step)) for step in pending), newest, totals):
            yield StepRow(step.attempt, step.step, row, ordinal=None, time_ns=step.time_ns)


def delivered_steps(state_dir: str | Path, run_id: str) -> int:
    """Return how many rows of a run wandb has been given, cheaply and from any process.

    Args:
        state_dir: The bridge's state directory; it need not exist yet.
        run_id: The run.

    Returns:
        The number of rows; 0 as long as there is no inbox or no such run.
    """
    if not (absolute(state_dir) / INBOX_FILE).exists():
        return 0
    try:
        with closing(InboxReader.open(state_dir)) as reader:
            return reader.delivered_steps(run_id)
    except BridgeError:
        return 0  # a bridge is just making it
