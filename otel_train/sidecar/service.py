"""The sidecar process: one for each directory of rings, from before the first record until the last is acknowledged."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from otel_train.exceptions import RingError
from otel_train.ring import is_alive, prepare_directory, ring_files, start_time
from otel_train.sidecar.exporter import Exporter
from otel_train.sidecar.feed import MAX_POINTS, Batch, RingFeed
from otel_train.signals import Wakeup

logger = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between two looks at the rings."""
LONGEST_PAUSE = 5.0
"""Seconds that a failing receiver is left alone at most."""
LONGEST_RUN = 64
"""Batches of a ring that are sent before the next look at what else there is to do."""
GRACE = 20.0
"""Seconds that a sidecar goes on at most after SIGTERM; SIGKILL commonly follows after 30."""
KEPT_ATTEMPTS = 2
"""Attempts whose rings are kept for a look at them after they were sent."""
LOCK_NAME = "sidecar.lock"
_Ready = tuple[Path, RingFeed, Batch]


class Sidecar:
    """Follows all rings of a directory and sends what they hold.

    Args:
        directory: Where the rings are.
        parent: The pid of the rank that started the sidecar; it stays at least as long as that one lives. None: until
            it is told to stop.
        rank_interval: Seconds between two exports of a rank's own values.
        linger: Seconds that it goes on trying after the last rank has ended.
        grace: Seconds that it goes on at most after `wind_up`.
        restarts: How often it was started again.
    """

    def __init__(
        self,
        directory: Path,
        *,
        parent: int | None = None,
        rank_interval: float = 10.0,
        linger: float = 3600.0,
        grace: float = GRACE,
        restarts: int = 0,
    ) -> None:
        self._directory = directory
        self._parent = (parent, start_time(parent)) if parent is not None else None
        self._rank_interval = rank_interval
        self._linger = linger
        self._grace = grace
        self._restarts = restarts
        self._feeds: dict[Path, RingFeed] = {}
        self._refused: set[Path] = set()
        self._leave_at = math.inf
        self._stopping = False
        self.wakeup = Wakeup()
        """Ends the pause between two looks."""

    def stop(self) -> None:
        """End after one more try to send."""
        self._stopping = True
        self.wakeup.set()

    def wind_up(self) -> None:
        """End when every ring has ended and is sent, after the grace time, or when asked again.

        A machine that is taken away tells the ranks and the sidecar at once, and the ranks' last steps are to come.
        """
        if self._leave_at < math.inf:
            self._stopping = True
        self._leave_at = min(self._leave_at, time.monotonic() + self._grace)
        self.wakeup.set()

    def run(self) -> None:
        """Serve until the job is over and everything is acknowledged, or `wind_up` or `stop` ends it."""
        with (self._directory / LOCK_NAME).open("a") as lock:
            if not self._acquire(lock.fileno()):
                return
            exporter = Exporter()
            try:
                self._serve(exporter)
            finally:
                exporter.close()

    def _acquire(self, descriptor: int) -> bool:
        """Wait for the directory's lock: another sidecar may be sending the rest of an attempt before this one."""
        while not self._stopping and time.monotonic() < self._leave_at:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if not self._parent_lives():
                return False
            self._pause(POLL)
        return False

    def _pause(self, seconds: float) -> None:
        self.wakeup.wait(max(0.0, min(seconds, self._leave_at - time.monotonic())))

    def _parent_lives(self) -> bool:
        return self._parent is None or is_alive(*self._parent)

    def _serve(self, exporter: Exporter) -> None:
        pause = POLL
        over_since: float | None = None
        while True:
            # Asked before looking: a ring that was made until then is found below.
            last = self._stopping
            unwatched = self._leave_at < math.inf or not self._parent_lives()
            self._discover()
            sent = self._send_all(exporter)
            over = unwatched and all(feed.ended for feed in self._feeds.values())
            drained = sent and all(feed.drained for feed in self._feeds.values())
            if over and drained:
                return
            if over:
                over_since = over_since or time.monotonic()
                last = last or time.monotonic() - over_since > self._linger
            if last or time.monotonic() >= self._leave_at:
                if not drained:
                    logger.warning("giving up; what is not sent stays in %s", self._directory)
                return
            pause = POLL if sent else min(LONGEST_PAUSE, 2 * pause)
            self._pause(pause)

    def _discover(self) -> None:
        for path in ring_files(self._directory):
            if path not in self._feeds and path not in self._refused:
                with self._refusing(path):
                    self._feeds[path] = RingFeed(path, self._rank_interval, self._restarts)
        attempts = sorted({feed.reader.identity.attempt for feed in self._feeds.values()})
        for path, feed in list(self._feeds.items()):
            if feed.reader.identity.attempt in attempts[:-KEPT_ATTEMPTS] and feed.ended and feed.drained:
                feed.reader.close()
                del self._feeds[path]
                with contextlib.suppress(OSError):
                    path.unlink()

    def _send_all(self, exporter: Exporter) -> bool:
        """Send what is there, for a while at most, and tell whether all of it was acknowledged.

        What ranks record meanwhile waits for the next look: a request for each record would cost many times as much.
        """
        for _ in range(LONGEST_RUN):
            ready = self._next_batches()
            if not all(self._send(exporter, request) for request in _requests(ready)):
                return False
            if not any(batch.full for _, _, batch in ready):
                break
        return True

    def _next_batches(self) -> list[_Ready]:
        ready = []
        for path, feed in list(self._feeds.items()):
            with self._refusing(path):
                batch = feed.next()
                if batch is not None:
                    ready.append((path, feed, batch))
        return ready

    def _send(self, exporter: Exporter, request: Sequence[_Ready]) -> bool:
        """Send one request, tell whether it was acknowledged, and move the cursors if so."""
        metrics = [batch.metrics for _, _, batch in request if batch.metrics is not None]
        if metrics and not exporter.send(metrics):
            return False
        for path, feed, batch in request:
            with self._refusing(path):
                feed.commit(batch)
        return True

    @contextlib.contextmanager
    def _refusing(self, path: Path) -> Iterator[None]:
        """Leave a ring out for good when the block fails: no damage to one may end what is done for the others."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # what damaged values lead to is not known beforehand
            self._refused.add(path)
            feed = self._feeds.pop(path, None)
            if feed is not None:
                feed.reader.close()
            if isinstance(error, RingError):
                logger.warning("%s", error)
            else:
                logger.warning("%s is damaged: its values can't be sent (%.200r); move it away", path, error)


def _requests(ready: Sequence[_Ready]) -> Iterator[list[_Ready]]:
    """Join batches to requests that a receiver takes."""
    request: list[_Ready] = []
    points = 0
    for each in ready:
        points += each[2].points
        if request and points > MAX_POINTS:
            yield request
            request, points = [], each[2].points
        request.append(each)
    if request:
        yield request


def run_sidecar(directory: Path, **options: Any) -> None:
    """Run a sidecar in this process until it is done.

    SIGTERM winds it up, a second one or SIGINT ends it after one more try to send.

    Args:
        directory: Where the rings are.
        **options: Those of `Sidecar`.

    Raises:
        RingError: The directory can't be made or is somebody else's.
    """
    prepare_directory(directory)
    sidecar = Sidecar(directory, **options)
    with sidecar.wakeup.handling({signal.SIGTERM: sidecar.wind_up, signal.SIGINT: sidecar.stop}):
        sidecar.run()
