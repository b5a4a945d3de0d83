"""The sidecar process: one for each directory of rings, from before the first record until the last is acknowledged."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import signal
import threading
import time
from pathlib import Path

from otel_train.exceptions import RingError
from otel_train.ring import is_alive, prepare_directory, ring_files, start_time
from otel_train.sidecar.exporter import Exporter
from otel_train.sidecar.feed import RingFeed

logger = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between two looks at the rings."""
LONGEST_PAUSE = 5.0
"""Seconds that a failing receiver is left alone at most."""
KEPT_ATTEMPTS = 2
"""Attempts whose rings are kept for a look at them after they were sent."""
LOCK_NAME = "sidecar.lock"


class Sidecar:
    """Follows all rings of a directory and sends what they hold.

    Args:
        directory: Where the rings are.
        parent: The pid of the rank that started the sidecar; it stays at least as long as that one lives. None: until
            it is told to stop.
        rank_interval: Seconds between two exports of a rank's own values.
        linger: Seconds that it goes on trying after the last rank has ended.
    """

    def __init__(
        self, directory: Path, *, parent: int | None = None, rank_interval: float = 10.0, linger: float = 3600.0
    ) -> None:
        self._directory = directory
        self._parent = (parent, start_time(parent)) if parent is not None else None
        self._rank_interval = rank_interval
        self._linger = linger
        self._feeds: dict[Path, RingFeed] = {}
        self._refused: set[Path] = set()
        self._stop = threading.Event()

    def stop(self) -> None:
        """End after one more try to send."""
        self._stop.set()

    def run(self) -> None:
        """Serve until the job is over and everything is acknowledged, or `stop` is called."""
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
        while not self._stop.is_set():
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if not self._parent_lives():
                return False
            self._stop.wait(POLL)
        return False

    def _parent_lives(self) -> bool:
        return self._parent is None or is_alive(*self._parent)

    def _serve(self, exporter: Exporter) -> None:
        pause = POLL
        over_since: float | None = None
        while True:
            stopping = self._stop.is_set()
            parent_lives = self._parent_lives()  # asked before looking: a ring made until then is found below
            self._discover()
            sent = self._send_all(exporter)
            over = self._parent is not None and not parent_lives and all(feed.ended for feed in self._feeds.values())
            if stopping or (over and sent and all(feed.drained for feed in self._feeds.values())):
                return
            if over:
                over_since = over_since or time.monotonic()
                if time.monotonic() - over_since > self._linger:
                    logger.warning("giving up; what is not sent stays in %s", self._directory)
                    return
            pause = POLL if sent else min(LONGEST_PAUSE, 2 * pause)
            self._stop.wait(pause)

    def _discover(self) -> None:
        paths = ring_files(self._directory)
        for path in paths:
            if path in self._feeds or path in self._refused:
                continue
            try:
                self._feeds[path] = RingFeed(path, self._rank_interval)
            except RingError as error:
                self._refused.add(path)
                logger.warning("%s", error)
        attempts = sorted({feed.reader.identity.attempt for feed in self._feeds.values()})
        for path, feed in list(self._feeds.items()):
            if feed.reader.identity.attempt in attempts[:-KEPT_ATTEMPTS] and feed.ended and feed.drained:
                feed.reader.close()
                del self._feeds[path]
                with contextlib.suppress(OSError):
                    path.unlink()

    def _send_all(self, exporter: Exporter) -> bool:
        """Send batches until no ring has more, and tell whether all were acknowledged."""
        while True:
            batches = [(feed, batch) for feed in self._feeds.values() if (batch := feed.next()) is not None]
            if not batches:
                return True
            metrics = [batch.metrics for _, batch in batches if batch.metrics is not None]
            if metrics and not exporter.send(metrics):
                return False
            for feed, batch in batches:
                feed.commit(batch)


def run_sidecar(
    directory: Path, *, parent: int | None = None, rank_interval: float = 10.0, linger: float = 3600.0
) -> None:
    """Run a sidecar in this process until it is done; SIGTERM and SIGINT end it after one more try to send.

    Raises:
        RingError: The directory can't be made or is somebody else's.
    """
    prepare_directory(directory)
    sidecar = Sidecar(directory, parent=parent, rank_interval=rank_interval, linger=linger)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sidecar.stop())
    sidecar.run()
