"""Bring the points of one collection together that a collector has sent in two requests, or two resources of one.

Where an SDK stamps each instrument by itself, points without the `train.step` of their collection wait under times of
their own, as any step that is not complete, and become that step's as soon as both are there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence

from otel_train.bridge.collection_times import ONE_TICK_NS
from otel_train.bridge.decode import Point, StepId
from otel_train.bridge.inbox_store import Store
from otel_train.bridge.past_steps import PastSteps
from otel_train.bridge.repeated_steps import Repeats
from otel_train.bridge.row_order import Pending
from otel_train.bridge.series_keys import SeriesKeys
from otel_train.bridge.wandb_rows import Arrived, SeriesKey
from otel_train.catalogue import rows

MOST_LOOKED_AT = 100_000
"""Points that are looked at for one request: the parts of another sender's steps wait, and are given up."""
NEIGHBOURS = 4
"""Steps of a request, to each side, whose series are compared."""
_Steps = dict[StepId, list[Point]]


class SplitCollections:
    """Finds the steps of points that came without them, within the transactions of an inbox.

    A step is that of points less than a tick away whose series it lacks: a collection has each series once.

    Args:
        store: Its database.
        keys: The keys of its runs.
        past_steps: The times that are not taken again.
        repeats: The collections that are no steps of their own.
    """

    def __init__(self, store: Store, keys: SeriesKeys, past_steps: PastSteps, repeats: Repeats) -> None:
        self._store = store
        self._keys = keys
        self._past_steps = past_steps
        self._repeats = repeats
        self._left = 0
        self._held: dict[StepId, set[SeriesKey]] = {}
        """Series of the steps that were looked at for the present request."""
        self._read: set[int] = set()
        """Steps of the tables that are among these."""

    def rejoin(self, steps: _Steps, attempts: Collection[tuple[str, int]]) -> tuple[_Steps, int]:
        """Return a request's points by the step that they are of, with those of it that waited.

        Args:
            steps: The points by their time.
            attempts: Run and attempt of senders that may give the points of one step several times.

        Returns:
            The points by step, and how many of them waited: they are in no table any more.
        """
        self._left = MOST_LOOKED_AT
        self._held.clear()
        self._read.clear()
        rejoined: _Steps = {}
        nameless: _Steps = {}
        times: dict[tuple[str, int], list[int]] = {}
        waited = 0
        for step_id, points in steps.items():
            if step_id[:2] not in attempts:
                rejoined[step_id] = points
            elif any(point.name == rows.STEP.name for point in points):
                rejoined[step_id] = points
                times.setdefault(step_id[:2], []).append(step_id.time_ns)
                waited += self._take_waiting(step_id, points)
            else:
                nameless[step_id] = points
        for steps_of_attempt in times.values():
            steps_of_attempt.sort()
        for step_id, points in nameless.items():
            held = self._held_near(step_id, times.get(step_id[:2], ()), rejoined)
            series = _series(points)
            found = next((time_ns for time_ns, names in held if names.isdisjoint(series)), step_id.time_ns)
            if found != step_id.time_ns:
                self._remember(step_id)
                self._series_held(step_id._replace(time_ns=found), rejoined).update(series)
            rejoined.setdefault(step_id._replace(time_ns=found), []).extend(points)
        return rejoined, waited

    def _take_waiting(self, step_id: StepId, points: list[Point]) -> int:
        """Move points that waited for their step, which has come, from the tables to its others; return how many."""
        count, series = len(points), _series(points)
        for part in self._near(step_id):
            if self._left <= 0:
                break
            arrived = self._arrived(part)
            names = {one[:2] for one in arrived}
            if part.time_ns == step_id.time_ns:
                series |= names
            elif part.step is None and series.isdisjoint(names):
                series |= names
                points += [Point(step_id, *one) for one in arrived]
                self._store.drop(part)
                self._remember(step_id._replace(time_ns=part.time_ns))
        return len(points) - count

    def _held_near(self, step_id: StepId, times: Sequence[int], steps: _Steps) -> list[tuple[int, set[SeriesKey]]]:
        """Return the times of steps less than a tick away, the nearest first, and the series that each has.

        Args:
            step_id: Points without a step.
            times: Sorted times of the request's steps of that attempt.
            steps: The request's points by step.
        """
        run, attempt, time_ns = self._keys.run(step_id.run_id), step_id.attempt, step_id.time_ns
        near = {repeated_ns: set[SeriesKey]() for repeated_ns in self._repeats.repeated(run, attempt)}
        index = bisect_left(times, time_ns)
        for near_ns in times[max(0, index - NEIGHBOURS) : index + NEIGHBOURS]:
            if abs(near_ns - time_ns) < ONE_TICK_NS and self._left > 0:
                near[near_ns] = self._series_held(step_id._replace(time_ns=near_ns), steps)
        for step in self._near(step_id):
            if step.step is not None and (step.id in self._read or self._left > 0):
                held = near[step.time_ns] = self._series_held(step_id._replace(time_ns=step.time_ns), steps)
                if step.id not in self._read:
                    self._read.add(step.id)
                    held.update(one[:2] for one in self._arrived(step))
        by_distance = sorted((abs(near_ns - time_ns), near_ns) for near_ns in near)
        return [(near_ns, near[near_ns]) for distance, near_ns in by_distance if distance < ONE_TICK_NS]

    def _arrived(self, step: Pending) -> list[Arrived]:
        """Return the points of a step without a row."""
        arrived = self._store.arrived(step)
        self._left -= len(arrived)
        return arrived

    def _series_held(self, step_id: StepId, steps: _Steps) -> set[SeriesKey]:
        """Return the series that a step has, which are read once for a request."""
        if step_id not in self._held:
            points = steps.get(step_id, ())
            self._left -= len(points)
            self._held[step_id] = _series(points)
        return self._held[step_id]

    def _near(self, step_id: StepId) -> list[Pending]:
        """Return the steps without a row less than a tick away, the nearest first."""
        if self._left <= 0:
            return []
        run, time_ns = self._keys.run(step_id.run_id), step_id.time_ns
        first_ns, last_ns = time_ns - ONE_TICK_NS + 1, time_ns + ONE_TICK_NS - 1
        near, count = self._store.between(run, step_id.attempt, first_ns, last_ns, self._left)
        self._left -= count
        return sorted(near, key=lambda step: abs(step.time_ns - time_ns))

    def _remember(self, step_id: StepId) -> None:
        """Note that what comes again at a time has its row under another one."""
        self._past_steps.remember(self._keys.run(step_id.run_id), step_id.attempt, step_id.time_ns, partial=0)


def _series(points: Iterable[Point]) -> set[SeriesKey]:
    return {(point.name, point.modality) for point in points}
