"""Take points into the inbox's tables: each once, however often it comes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from otel_train.bridge.decode import Kind, Point, StepId
from otel_train.bridge.inbox_store import Store
from otel_train.bridge.past_steps import PastSteps
from otel_train.bridge.repeated_steps import Repeats
from otel_train.bridge.row_order import Pending
from otel_train.bridge.series_keys import SeriesKeys
from otel_train.bridge.split_collections import SplitCollections
from otel_train.bridge.wandb_rows import Arrived
from otel_train.catalogue import cluster_name, rows

MAX_STEP_POINTS = 10_000
"""A step that has this many points takes no more: a row's size is bounded whatever is sent."""
SAME_ARRIVAL_NS = 10**8
"""Arrivals so close to each other are not told apart."""
_MOST = 2**62
_STEP_POINTS = cluster_name(rows.STEP_POINTS.name)
_STEP_ORDINAL = cluster_name(rows.STEP_ORDINAL.name)
_TELLING = frozenset({rows.STEP.name, _STEP_POINTS, _STEP_ORDINAL})
"""Names of the points that tell something of their step."""
_Taken = dict[int, Point]
"""Points by the key of their series."""


@dataclass(slots=True)
class Added:
    """Counts of a request's points: the new ones, and the others by reason."""

    new: int = 0
    duplicates: int = 0
    """Points that were there already, or of a step whose whole row is made."""
    late: int = 0
    """Points of a step whose row was made without all of its points, which may be those that it lacks, and points of a
    step that comes after a later one's row."""
    refused: int = 0
    """Points beyond the bound of series of a run or of points of a step; the step's row will be partial."""


@dataclass(slots=True)
class _Step:
    """Step, number and counts that the points of a step tell."""

    step: int | None = None
    number: int | None = None
    expected: int | None = None
    arrived: int = 0


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Progress of an attempt before a request."""

    newest_ns: int = 0
    """The newest time stamp with a row."""
    floor_ns: int = 0
    """The time stamp up to which every step has its row."""
    highest_ns: int = 0
    """The time stamp after which no step is known."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A step that is in no table yet, and its first points."""

    run: int
    run_id: str
    pending: Pending
    """The step; it has no id yet."""
    taken: _Taken

    def arrived(self) -> Iterable[Arrived]:
        """Return its points as a row is made of them."""
        return [point[1:] for point in self.taken.values()]


class Arrivals:
    """Adds points, within the transactions of its inbox.

    Args:
        store: The inbox's database.
        past_steps: The times of which nothing more is taken.
        max_series: The number of series that a run may have.
    """

    def __init__(self, store: Store, past_steps: PastSteps, max_series: int) -> None:
        self._connection = store.connection
        self._keys = SeriesKeys(store.connection, max_series)
        self._repeats = Repeats()
        self._split = SplitCollections(store, self._keys, past_steps, self._repeats)

    def forget(self) -> None:
        """Drop the keys that were looked up: those of a transaction that failed were never given."""
        self._keys.forget()
        self._repeats.forget()

    def take(
        self, points: Iterable[Point], stamped_apart: Collection[tuple[str, int]], now_ns: int, added: Added
    ) -> tuple[list[Begun], dict[int, str]]:
        """Take the points of a request, and count them in `added`.

        Args:
            points: In any order, of any steps.
            stamped_apart: Run and attempt of senders that may give the points of one step several times.
            now_ns: The time of arrival.
            added: The counts.

        Returns:
            The steps that begin, which are in no table until `begin` or a row of theirs puts them there; and the runs,
            by key, whose steps without a row got more points.
        """
        begun: list[Begun] = []
        grown: dict[int, str] = {}
        attempts: dict[tuple[int, int], _Attempt] = {}
        steps: dict[StepId, list[Point]] = {}
        for point in points:
            steps.setdefault(point.step_id, []).append(point)
        if stamped_apart:
            steps, waited = self._split.rejoin(steps, stamped_apart)
            added.new -= waited
        for step_id, of_step in steps.items():
            run = self._keys.run(step_id.run_id)
            where = (run, step_id.attempt)
            if where not in attempts:
                attempts[where] = self._attempt(run, step_id.attempt, now_ns)
            attempt = attempts[where]
            new = None
            if step_id.time_ns <= attempt.highest_ns:
                new = self._add_to(run, step_id, of_step, now_ns, added, floor_ns=attempt.floor_ns)
            if new is None:
                late = step_id.time_ns < attempt.newest_ns
                first = self._first(run, step_id, of_step, now_ns, added, late=late)
                if first is not None:
                    begun.append(first)
            elif new:
                grown[run] = step_id.run_id
        return begun, grown

    def begin(self, steps: Iterable[Begun]) -> None:
        """Put steps that begin into the tables, without a row.

        The points that come first are one entry until the step's row is made or more come: a sidecar, and a collector
        after it, send all of a step at once.
        """
        for begun in steps:
            step = begun.pending
            key = self._connection.execute(
                "INSERT INTO steps (run, attempt, time_ns, step, number, expected, arrived, first_ns, last_ns)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(begun.run, step.attempt, step.time_ns, step.step, step.number, step.expected),
                    *(step.arrived, step.first_ns, step.last_ns),
                ),
            ).lastrowid
            if begun.taken:
                entry = json.dumps([(series, point.kind, point.value) for series, point in begun.taken.items()])
                self._connection.execute("INSERT INTO together VALUES (?, ?)", (key, entry))

    def _add_to(
        self, run: int, step_id: StepId, points: Sequence[Point], now_ns: int, added: Added, *, floor_ns: int
    ) -> bool | None:
        """Add points to their step, and tell whether any of them is new; None where there is no such step."""
        execute = self._connection.execute
        row = execute(
            "SELECT id, step, number, expected, arrived, ordinal, partial FROM steps"
            " WHERE run = ? AND attempt = ? AND time_ns = ?",
            (run, step_id.attempt, step_id.time_ns),
        ).fetchone()
        if row is None:
            past = self._past(run, step_id, floor_ns)
            if past is not None:
                _count_repeated(points, added, partial=past)
            return None if past is None else False
        key, *columns, ordinal, partial = row
        if ordinal is not None:
            _count_repeated(points, added, partial=partial)
            return False
        step = _Step(*columns)
        had_step = step.step is not None
        taken = self._read(run, points, step, added)
        inserted = self._join(key, taken)
        self._repeats.grow(run, step_id.attempt, step_id.time_ns, taken)
        new_step = step.step is not None and not had_step
        added.new += inserted + new_step
        added.duplicates += len(taken) - inserted
        if inserted or new_step:
            execute(
                "UPDATE steps SET step = ?, number = ?, expected = ?, arrived = ?, last_ns = ? WHERE id = ?",
                (step.step, step.number, step.expected, step.arrived + inserted, now_ns, key),
            )
        return bool(inserted or new_step)

    def _attempt(self, run: int, attempt: int, now_ns: int) -> _Attempt:
        """Note that points of an attempt arrived, and return how far it was."""
        progress = self._connection.execute(
            "SELECT newest_ns, floor_ns, last_ns,"
            " (SELECT max(time_ns) FROM steps WHERE run = attempts.run AND attempt = attempts.attempt),"
            " (SELECT max(time_ns) FROM past WHERE run = attempts.run AND attempt = attempts.attempt)"
            " FROM attempts WHERE run = ? AND attempt = ?",
            (run, attempt),
        ).fetchone()
        if progress is None:
            self._connection.execute(
                "INSERT INTO attempts (run, attempt, last_ns) VALUES (?, ?, ?)", (run, attempt, now_ns)
            )
            return _Attempt()
        newest_ns, floor_ns, last_ns, *highest_ns = progress
        if abs(now_ns - last_ns) > SAME_ARRIVAL_NS:
            self._connection.execute(
                "UPDATE attempts SET last_ns = ? WHERE run = ? AND attempt = ?", (now_ns, run, attempt)
            )
        return _Attempt(newest_ns, floor_ns, max(floor_ns, *(time_ns or 0 for time_ns in highest_ns)))

    def _past(self, run: int, step_id: StepId, floor_ns: int) -> bool | None:
        """Return None for a step that is not in wandb, else whether its row there is partial."""
        row = self._connection.execute(
            "SELECT partial FROM past WHERE run = ? AND attempt = ? AND time_ns = ?",
            (run, step_id.attempt, step_id.time_ns),
        ).fetchone()
        if row is not None:
            return bool(row[0])
        return False if step_id.time_ns <= floor_ns else None

    def _first(
        self, run: int, step_id: StepId, points: Sequence[Point], now_ns: int, added: Added, *, late: bool
    ) -> Begun | None:
        """Read the first points of a step; None where it is the last one once more."""
        step = _Step()
        taken = self._read(run, points, step, added)
        pending = Pending(
            id=0,
            attempt=step_id.attempt,
            step=step.step,
            number=step.number,
            time_ns=step_id.time_ns,
            expected=step.expected,
            arrived=len(taken),
            first_ns=now_ns,
            last_ns=now_ns,
            together=None,
        )
        if self._repeats.is_repeat(run, pending, taken):
            added.duplicates += len(taken)
            return None
        if step.step is None:  # its `train.step` came again with nothing new, which is in no table
            pending = replace(pending, step=self._repeats.step_at(run, step_id.attempt, step_id.time_ns))
        added.new += len(taken) + (step.step is not None)
        added.late += len(taken) if late else 0
        return Begun(run, step_id.run_id, pending, taken)

    def _read(self, run: int, points: Sequence[Point], step: _Step, added: Added) -> _Taken:
        """Return the points that are values, and set in `step` what the others tell of it."""
        taken: _Taken = {}
        keys = self._keys.series(run)
        for point in points:
            telling = point.name in _TELLING
            if telling and point.name == rows.STEP.name:
                if step.step is None:
                    step.step = int(point.value)
                continue
            series = keys.get(point[1:3]) or self._keys.add(run, point[1:3])
            if series is None or step.arrived + len(taken) >= MAX_STEP_POINTS:
                added.refused += 1
                continue
            if series in taken:
                added.duplicates += 1
                continue
            taken[series] = point
            if telling and point.kind is Kind.VALUE and point.value >= 1:
                if point.name == _STEP_POINTS and step.expected is None:
                    step.expected = int(min(point.value, _MOST))
                elif point.name == _STEP_ORDINAL and step.number is None:
                    step.number = int(min(point.value, _MOST))
        return taken

    def _join(self, key: int, taken: _Taken) -> int:
        """Add those points of a step that are missing, and return how many; each is an entry from now on."""
        if not taken:
            return 0
        row = self._connection.execute("DELETE FROM together WHERE step = ? RETURNING points", (key,)).fetchone()
        if row is not None:
            self._insert(key, json.loads(row[0]))
        return self._insert(key, [(series, point.kind, point.value) for series, point in taken.items()])

    def _insert(self, key: int, taken: Iterable[Sequence[float]]) -> int:
        return self._connection.executemany(
            "INSERT OR IGNORE INTO points VALUES (?, ?, ?, ?)", [(key, *point) for point in taken]
        ).rowcount


def _count_repeated(points: Sequence[Point], added: Added, *, partial: bool) -> None:
    """Count points of a step that has its row."""
    # Each rank's own record comes with a `train.step` too, under the same time stamp as the cluster's.
    count = sum(point.name != rows.STEP.name for point in points)
    if partial:
        added.late += count
    else:
        added.duplicates += count
