"""Keep what is known of each run's job beside its steps: its settings and how it ended; wandb is told of changes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from otel_train.bridge.inbox_store import Store
from otel_train.bridge.job_points import SessionEnd, Setting
from otel_train.bridge.outcome import outweighs

MOST_SETTINGS = 1024
"""Settings of a run; further ones are refused."""
CACHED_JOBS = 4096
_NEWEST = "SELECT coalesce(max(attempt), 0), count(*) FROM attempts WHERE run = ?"


@dataclass(frozen=True, slots=True)
class Job:
    """State of a run's job, of its newest attempt."""

    settings: dict[str, Any]
    """By name; empty where the sender tells none."""
    exit_code: int | None
    """Exit code; None while the job goes on, and where nothing tells how it ended."""
    attempts: int
    """Attempts that had steps."""
    revision: int
    """Number that grows with each change of settings or end."""


NO_JOB = Job({}, None, 0, 0)


class Jobs:
    """Settings and ends of the runs' jobs, within the transactions of an inbox.

    Args:
        store: Its database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._untold: dict[int, str] | None = None
        """Runs of which wandb has not been told everything; None until they are read."""
        self._jobs: dict[str, Job] = {}

    def forget(self) -> None:
        """Drop what was looked up: a transaction failed."""
        self._untold = None
        self._jobs.clear()

    def take(self, settings: Iterable[Setting], ends: Iterable[SessionEnd]) -> int:
        """Take settings and ends, in any order and any number of times; those of earlier attempts count no more.

        Of the ranks of an attempt that end in several ways the one counts that says most of why the job ended.

        Returns:
            Settings that were refused: the run has too many.
        """
        refused = 0
        by_run: dict[str, tuple[list[Setting], list[SessionEnd]]] = {}
        for setting in settings:
            by_run.setdefault(setting.run_id, ([], []))[0].append(setting)
        for end in ends:
            by_run.setdefault(end.run_id, ([], []))[1].append(end)
        for run_id, (run_settings, run_ends) in by_run.items():
            refused += self._take(run_id, run_settings, run_ends)
        return refused

    def _take(self, run_id: str, settings: list[Setting], ends: list[SessionEnd]) -> int:
        execute = self._store.connection.execute
        execute("INSERT OR IGNORE INTO runs (run_id) VALUES (?)", (run_id,))
        key = self._store.run_key(run_id)
        row = execute("SELECT attempt, settings, exit_code, ended_ns FROM jobs WHERE run = ?", (key,)).fetchone()
        before = attempt, text, code, ended_ns = row or (0, "{}", None, 0)
        known, refused = json.loads(text), 0
        for setting in settings:
            if setting.attempt > attempt:
                attempt, known, code, ended_ns = setting.attempt, {}, None, 0
            if setting.attempt == attempt:
                if setting.name not in known and len(known) >= MOST_SETTINGS:
                    refused += 1
                    continue
                known[setting.name] = setting.value
        for end in ends:
            if end.attempt > attempt:
                attempt, known, code, ended_ns = end.attempt, {}, None, 0
            # That another rank has ended well says nothing of the job.
            counts = end.attempt == attempt and (end.code or end.is_first_rank)
            if counts and outweighs(end.code, code, end.time_ns - ended_ns):
                code, ended_ns = end.code, end.time_ns
        after = attempt, json.dumps(known, sort_keys=True), code, ended_ns
        if after != before:
            execute(
                "INSERT INTO jobs (run, attempt, settings, exit_code, ended_ns) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (run) DO UPDATE SET attempt = excluded.attempt, settings = excluded.settings,"
                " exit_code = excluded.exit_code, ended_ns = excluded.ended_ns, revision = revision + 1",
                (key, *after),
            )
            self._jobs.pop(run_id, None)
            if self._untold is not None and key is not None:
                self._untold[key] = run_id
        return refused

    def untold(self) -> Iterable[str]:
        """Return the runs of which wandb has not been told everything."""
        with self._store.lock:
            return tuple(self._read_untold().values())

    def is_untold(self, run_id: str) -> bool:
        """Tell whether wandb has not been told everything of a run."""
        with self._store.lock:
            untold = self._read_untold()
            return bool(untold) and self._store.run_key(run_id) in untold

    def _read_untold(self) -> dict[int, str]:
        if self._untold is None:
            self._untold = dict(
                self._store.connection.execute(
                    "SELECT run, run_id FROM jobs JOIN runs ON runs.id = jobs.run WHERE revision > told"
                )
            )
        return self._untold

    def note_told(self, run_id: str, revision: int) -> None:
        """Note that wandb has durably what was known of a run as of a revision."""
        key = self._store.run_key(run_id)
        self._store.connection.execute("UPDATE jobs SET told = max(told, ?) WHERE run = ?", (revision, key))
        self._untold = None

    def __getitem__(self, run_id: str) -> Job:
        """Return what is known of a run's job; of an attempt that has begun since, nothing is."""
        with self._store.lock:
            if run_id not in self._jobs:
                if len(self._jobs) >= CACHED_JOBS:
                    self._jobs.clear()
                self._jobs[run_id] = self._read(run_id)
            job = self._jobs[run_id]
            if job.exit_code is None:
                return job
            # Only where it has ended: another attempt may have begun since, whose sender tells nothing.
            (newest, attempts), ended = self._attempts(run_id)
            return Job(job.settings, job.exit_code if ended >= newest else None, attempts, job.revision)

    def _attempts(self, run_id: str) -> tuple[tuple[int, int], int]:
        key, execute = self._store.run_key(run_id), self._store.connection.execute
        ((ended,),) = execute("SELECT attempt FROM jobs WHERE run = ?", (key,))
        newest, attempts = execute(_NEWEST, (key,)).fetchone()
        return (newest, attempts), ended

    def _read(self, run_id: str) -> Job:
        row = self._store.connection.execute(
            "SELECT settings, exit_code, revision FROM jobs JOIN runs ON runs.id = jobs.run WHERE run_id = ?", (run_id,)
        ).fetchone()
        return NO_JOB if row is None else Job(json.loads(row[0]), row[1], 0, row[2])
