"""Deliver what the rings of one directory hold, as its sidecar would, under its lock."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from otel_train.endpoint import Endpoint
from otel_train.otlp.answers import Answer
from otel_train.ring import Identity, take_lock, turn_is_asked_for
from otel_train.send.figures import DirectoryFigures, RunFigures, State
from otel_train.send.serving_process import ServingProcess
from otel_train.send.time_limit import BoundedExporter
from otel_train.sidecar.announcer import Announcer
from otel_train.sidecar.feed import RingFeed
from otel_train.sidecar.ring_feeds import RingFeeds
from otel_train.sidecar.sender import Sender

TURN = 10.0
"""Seconds that a session which has asked for its turn has to start its sidecar, or one that made way to come back."""
TRIAL = 5.0
"""Seconds in which the receiver must take something from this process for which a sidecar has made way: that leaves for
good after 10."""


@dataclass(slots=True, kw_only=True)
class _Ring:
    """State of one ring at the call, and as it was seen last."""

    identity: Identity
    begin: int
    """Records that were acknowledged, or lost, at the call."""
    target: int
    """Records that were written at the call: what a live rank writes later is its sidecar's, or the next call's."""
    dropped: int
    refused: Counter[str]
    """Points by reason, as the two below."""
    position: int
    now_dropped: int
    now_refused: Counter[str]
    points: int = 0
    """Points of feeds that were closed since."""
    refused_records: int = 0
    """Records of which nothing was taken, by feeds that were closed since."""
    lives: bool = False
    waits: bool = False
    """Whether a record that was read waits for one that will not come, and is not sent yet."""

    end_told: bool = True
    """Whether the receiver knows that the session has failed, where it has."""

    @property
    def left(self) -> int:
        """Records that are not acknowledged."""
        return max(self.target - self.position, int(self.waits))

    def see(self, feed: RingFeed) -> None:
        """Note the ring's present state."""
        cursor = feed.reader.cursor
        self.position, self.now_dropped = cursor.position, cursor.dropped
        self.now_refused = Counter(feed.reader.refused)
        self.lives = not feed.ended
        self.end_told = feed.end_is_told
        self.waits = feed.ended and cursor.position >= feed.reader.progress.written and not feed.drained


class Tally(Announcer):
    """An announcer that remembers for the figures what a receiver answered.

    Args:
        directory: Directory of the rings.
        exporter: The connection.
    """

    def __init__(self, directory: Path, exporter: BoundedExporter) -> None:
        super().__init__(directory, exporter.endpoint)
        self._exporter = exporter
        self.failure: Answer | None = None
        """The answer for which nothing could be delivered last; None after one that was taken."""
        self.refusal = ""

    def taken(self) -> None:
        """Note that the receiver has acknowledged."""
        self.failure = None
        super().taken()

    def failing(self, answer: Answer) -> None:
        """Note that nothing can be delivered for the time being; that the time is over is no fault of a receiver."""
        if answer is self._exporter.out_of_time:
            return
        if self.failure is None or not (answer.unanswered and self._exporter.is_cut):
            self.failure = answer
        super().failing(answer)

    def refused(self, answer: Answer, source: str, names: list[str], count: int) -> None:
        """Note that points were refused for good."""
        self.refusal = f"{answer.cause}: {answer.text}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        super().refused(answer, source, names, count)


class Backlog:
    """All that the rings of a directory hold at this moment, on its way to the receiver.

    Args:
        directory: Directory of the rings, of this process's user.
        named: Whether the user named it, and not one that it is in: then it is sent whatever its job was to have.
    """

    def __init__(self, directory: Path, *, named: bool = True) -> None:
        self.directory = directory
        self._named = named
        self._feeds = RingFeeds(directory, None, 0)
        self._rings: dict[Path, _Ring] = {}
        self._lock: int | None = None
        self._sender: Sender | None = None
        self._tally: Tally | None = None
        self._receiver = ""
        self._others_until = 0.0
        self._trial_until = math.inf
        self._other = ServingProcess(directory)
        self._has_sent = False
        self._state = State.LEFT
        self.reason = ""
        """Why it can't be delivered, as far as it does not follow from what the receiver answers."""

    def look(self) -> bool:
        """Look at the rings, and tell whether there is nothing to do."""
        self._feeds.discover()
        for path, feed in self._feeds.by_path.items():
            with self._feeds.guarded(path):
                cursor, written = feed.reader.cursor, feed.reader.progress.written
                refused = Counter(feed.reader.refused)
                self._rings[path] = _Ring(
                    identity=feed.reader.identity,
                    begin=cursor.position,
                    target=max(written, cursor.position),
                    dropped=cursor.dropped,
                    refused=refused,
                    position=cursor.position,
                    now_dropped=cursor.dropped,
                    now_refused=refused,
                )
        if self._all_sent():
            return self._end(State.DELIVERED)
        to_nobody = [not feed.reader.facts.get("telemetry.delivers", True) for feed in self._feeds.by_path.values()]
        if not self._named and all(to_nobody):
            self.reason = f"its job was to have no receiver; `otel-train send {self.directory}` sends it"
            return self._end(State.SKIPPED)
        return False

    def advance(self, exporter: BoundedExporter, missing: str = "") -> bool:
        """Send for a while, or see how far the process is that serves the directory, and tell whether it is over.

        Args:
            exporter: The connection.
            missing: Why there is no receiver to try; empty where there is one.

        Raises:
            OSError: The directory's lock can't be taken.
        """
        if self._lock is None and not self._begin(exporter):
            lives = any(not feed.ended for feed in self._feeds.by_path.values())
            self._other.wait(exporter, missing, lives=lives)
            return self._others_have_sent()
        assert self._sender is not None, "it is there with the lock"
        if self._all_sent():
            return self._end(State.DELIVERED)
        if missing:
            self.reason = missing
            return self._end(State.LEFT)
        self._has_sent = True
        self._sender.send_all(self._feeds.by_path)
        if self._all_sent():
            return self._end(State.DELIVERED)
        if turn_is_asked_for(self.directory) or self._gives_back():
            self._others_until = time.monotonic() + TURN
            self._release()
        return False

    @property
    def delay(self) -> float:
        """Seconds that the receiver asks to be left alone."""
        return self._sender.delay if self._sender is not None else 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether another process has the lock, or its turn."""
        return self._lock is None

    @property
    def is_held_up(self) -> bool:
        """Whether nothing can be sent at present: the receiver does not take it, or another process has the lock."""
        return self.is_waiting or (self._tally is not None and self._tally.failure is not None)

    def _begin(self, exporter: BoundedExporter) -> bool:
        """Take the lock, if it is free, and read the rings anew: whoever had it may have moved their cursors."""
        if time.monotonic() < self._others_until:
            return False
        self._lock = take_lock(self.directory)
        if self._lock is None:
            return False
        if self._other.withdraw():
            self._trial_until = time.monotonic() + TRIAL
        self._reopen()
        self._receiver = str(exporter.endpoint)
        self._tally = Tally(self.directory, exporter)
        self._sender = Sender(exporter, self._tally, self._feeds.guarded)
        return True

    def _gives_back(self) -> bool:
        """Tell, once, whether a sidecar made way for nothing: it tries longer than this process, and is let back."""
        assert self._tally is not None, "it is there with the lock"
        if time.monotonic() < self._trial_until:
            return False
        self._trial_until = math.inf
        return self._tally.failure is not None

    def _reopen(self) -> None:
        self._count_feeds()
        self._feeds.reopen()

    def _count_feeds(self) -> None:
        for path, feed in self._feeds.by_path.items():
            if path in self._rings:
                self._rings[path].points += feed.points
                self._rings[path].refused_records += feed.refused_records

    def _others_have_sent(self) -> bool:
        """Tell whether the process that serves the directory has delivered all."""
        feeds = self._feeds.by_path
        if all(
            feeds[path].reader.cursor.position >= ring.target for path, ring in self._rings.items() if path in feeds
        ):
            self._reopen()  # whether a record waits for another one follows from the records before the cursor
            if self._all_sent():
                return self._end(State.DELIVERED)
        return False

    def _all_sent(self) -> bool:
        """Note the state of the rings, and tell whether all that they held at the call is acknowledged."""
        for path, ring in self._rings.items():
            feed = self._feeds.by_path.get(path)
            if feed is not None:
                with self._feeds.guarded(path):
                    ring.see(feed)
        rings = [ring for path, ring in self._rings.items() if path in self._feeds.by_path]
        return not any(ring.left or not ring.end_told for ring in rings)

    def _end(self, state: State) -> bool:
        self._state = state
        self._release()
        return True

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def close(self) -> None:
        """Give rings and lock back; the figures stay."""
        self._other.withdraw()
        self._release()
        self._count_feeds()
        for feed in self._feeds.by_path.values():
            feed.reader.close()
        self._feeds.by_path.clear()

    def figures(self, why_ended: str) -> DirectoryFigures:
        """Return the figures of a backlog that is closed.

        Args:
            why_ended: Why no more was tried.
        """
        unreadable = {path.name: why for path, why in self._feeds.left_out.items()}
        state = State.LEFT if unreadable else self._state
        moved = any(ring.position > ring.begin for ring in self._rings.values())
        by = "" if not moved else "send" if self._has_sent else "another" if self._other.met else ""
        return DirectoryFigures(
            directory=str(self.directory),
            state=state,
            by=by,
            receiver=self._receiver,
            reason=self._why_left(unreadable, why_ended) if state is State.LEFT else self.reason,
            refusal=self._tally.refusal if self._tally is not None else "",
            unreadable=unreadable,
            runs=_by_run(self._rings),
        )

    def _why_left(self, unreadable: Mapping[str, str], why_ended: str) -> str:
        if self.reason:
            return self.reason
        if self._state is not State.LEFT:
            return next(iter(unreadable.values()))
        failure = self._tally.failure if self._tally is not None else None
        if failure is not None:
            text = f": {failure.text}" if failure.text else ""
            advice = f". {failure.advice}" if failure.advice else ""
            return f"the receiver at {self._receiver} does not acknowledge ({failure.cause}{text}){advice}"
        if self._other.met and not self._has_sent:
            return self._other.why_left()
        return why_ended


def _by_run(rings: Mapping[Path, _Ring]) -> list[RunFigures]:
    """Return the sums over the rings of each run."""
    runs: dict[str, RunFigures] = {}
    for ring in rings.values():
        identity = ring.identity
        run = runs.setdefault(identity.run_id, RunFigures(run=identity.run_id))
        run.attempts = sorted({*run.attempts, identity.attempt})
        run.hosts = sorted({*run.hosts, identity.host})
        lost = ring.now_dropped - ring.dropped
        run.rings += 1
        run.live += ring.lives
        run.delivered += max(0, ring.position - ring.begin - lost - ring.refused_records)
        run.refused_records += ring.refused_records
        run.left += ring.left
        run.overwritten += lost
        run.points += ring.points
        refused = ring.now_refused - ring.refused
        run.refused += refused.total()
        run.refusals = dict(Counter(run.refusals) + refused)
    return list(runs.values())


def receiver_is_missing(endpoint: Endpoint) -> str:
    """Return what to do where no variable names a receiver and none is at the default address; else an empty text."""
    if endpoint.is_there:
        return ""
    return f"no variable names a receiver and nothing listens at {endpoint}; set OTEL_EXPORTER_OTLP_ENDPOINT"
