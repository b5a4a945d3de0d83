"""The sidecar process: one for each directory of rings, from before the first record until the last is acknowledged."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import Any

from otel_train.exceptions import ConfigurationError
from otel_train.otlp.exporter import Exporter
from otel_train.ring import (
    LOCK_NAME,
    SidecarEnd,
    clean_beside,
    prepare_directory,
    turn_is_asked_for,
)
from otel_train.sidecar.announcer import Announcer
from otel_train.sidecar.ring_feeds import RingFeeds
from otel_train.sidecar.sender import Sender
from otel_train.wakeup import Wakeup

logger = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between two looks at the rings."""
LONGEST_PAUSE = 5.0
"""Longest pause, in seconds, between two tries of a failing receiver."""
GRACE = 20.0
"""Seconds that a sidecar goes on at most after SIGTERM; SIGKILL commonly follows after 30."""
FAREWELL = 30.0
"""Seconds that a sidecar tries at most to tell how a job has ended well whose records have all arrived."""
LONGEST_ASK = 1.0
"""Seconds that a sidecar tries to get the lock of a directory: whoever asks whether it is taken has it for a moment."""
TURN = 10.0
"""Seconds that whoever asked for the lock has to take it."""
WAITING = 60.0
"""Seconds without a ring after which that is a warning, of a sidecar that the platform or a person has started."""


class _Stop(Enum):
    """Why a sidecar stops serving, for good or for a while."""

    OVER = auto()
    """All rings have ended and are sent."""
    TURN = auto()
    """The sidecar of another session, or a send, asks for its turn."""
    GAVE_UP = auto()
    """The linger time or the grace time is over."""


class Sidecar:
    """Follows all rings of a directory and sends what they hold.

    Args:
        directory: Directory of the rings.
        session: Tells whether the session that started the sidecar is open: it stays at least as long. None: until it
            is told to stop.
        rank_interval: Seconds between two exports of a rank's own values.
        linger: Seconds that it goes on trying after the last rank has ended; they begin anew with each attempt.
        grace: Seconds that it goes on at most after `wind_up`.
        restarts: How often it was started again.

    Raises:
        ConfigurationError: A number of seconds is negative or not finite.
    """

    def __init__(
        self,
        directory: Path,
        *,
        session: Callable[[], bool] | None = None,
        rank_interval: float = 10.0,
        linger: float = 3600.0,
        grace: float = GRACE,
        restarts: int = 0,
    ) -> None:
        for name, seconds in (("rank_interval", rank_interval), ("linger", linger), ("grace", grace)):
            if not 0 <= seconds < math.inf:
                raise ConfigurationError(
                    f"sidecar: {name} must be a finite number of seconds, not negative, got {seconds}"
                )
        self._directory = directory
        self._session = session
        self._linger = linger
        self._grace = grace
        self._feeds = RingFeeds(directory, rank_interval, restarts)
        self._leave_at = math.inf
        self._stopping = False
        self._waiting: tuple[float, int] | None = None
        """Time and level of the next log line that no ring is there."""
        self.wakeup = Wakeup()
        """Ends the pause between two looks."""

    def stop(self) -> None:
        """End after one more try."""
        self._stopping = True
        self.wakeup.set()

    def wind_up(self) -> None:
        """End when every ring has ended and is sent, after the grace time, or when asked again.

        A machine that is taken away signals ranks and sidecar at once, and the ranks' last steps are still to come.
        """
        if self._leave_at < math.inf:
            self._stopping = True
        self._leave_at = min(self._leave_at, time.monotonic() + self._grace)
        self.wakeup.set()

    def run(self) -> SidecarEnd:
        """Serve until the job is over and everything is acknowledged, or `wind_up` or `stop` ends it; return why."""
        with (self._directory / LOCK_NAME).open("a") as lock:
            if not self._acquire(lock.fileno(), math.inf if self._session is None else LONGEST_ASK):
                return SidecarEnd.TOLD if self._told else SidecarEnd.ANOTHER_SERVES
            if not self._is_named(lock.fileno()):
                return SidecarEnd.ANOTHER_SERVES  # or no one yet: the directory was cleaned away a moment ago
            self._clean()
            exporter = Exporter()
            announcer = Announcer(self._directory, exporter.endpoint)
            sender = Sender(exporter, announcer, self._feeds.guarded)
            try:
                while (reason := self._serve(sender, exporter, announcer)) is not _Stop.GAVE_UP:
                    fcntl.flock(lock, fcntl.LOCK_UN)
                    if reason is _Stop.TURN:
                        self._pause(TURN)
                    if self._told or not self._is_needed() or not self._acquire(lock.fileno(), LONGEST_ASK):
                        break
                    if not self._is_named(lock.fileno()):
                        break  # whoever served meanwhile has cleaned the directory, and a later job has begun in it
            finally:
                exporter.close()
            return SidecarEnd.TOLD if self._told else SidecarEnd.DONE

    def _is_named(self, descriptor: int) -> bool:
        """Tell whether the lock file is still the one in the directory."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), (self._directory / LOCK_NAME).stat())
        return False

    def _clean(self) -> None:
        """Remove rings that earlier jobs have left next to this one's directory, beyond those that are kept."""
        try:
            for run in clean_beside(self._directory):
                logger.info("removed the rings in %s, which are delivered: %d bytes", run.directory, run.size)
        except Exception as error:  # noqa: BLE001  # damaged leftovers must not keep anything from being sent
            logger.warning("earlier jobs' rings can't be cleaned away: %r", error)

    def _acquire(self, descriptor: int, seconds: float) -> bool:
        """Wait at most that many seconds for the directory's lock, and tell whether this sidecar has it."""
        began = time.monotonic()
        while not self._told:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            waited = time.monotonic() - began
            if waited >= seconds:
                return False
            if LONGEST_ASK <= waited < LONGEST_ASK + POLL:
                logger.info("another sidecar serves %s; this one waits for its end", self._directory)
            self._pause(POLL)
        return False

    @property
    def _told(self) -> bool:
        """Whether a signal told it to end, and the grace time is over."""
        return self._stopping or time.monotonic() >= self._leave_at

    def _is_needed(self) -> bool:
        """Tell, without the lock, whether a ring goes on or is not sent yet.

        A session that was closed a moment ago has seen the lock taken, and starts no sidecar of its own.
        """
        self._feeds.reopen()
        return not (self._feeds.ended and self._feeds.drained)

    def _pause(self, seconds: float) -> None:
        self.wakeup.wait(max(0.0, min(seconds, self._leave_at - time.monotonic())))

    def _serve(self, sender: Sender, exporter: Exporter, announcer: Announcer) -> _Stop:
        """Send until all is over, the linger time ends, or somebody else asks for a turn."""
        pause = POLL
        rings, over_since, told_since = 0, math.inf, time.monotonic()
        while True:
            # Asked before looking: a ring that was made until then is discovered below.
            last = self._stopping
            session_over = self._session is not None and not self._session()
            unwatched = self._leave_at < math.inf or session_over
            self._discover()
            self._feeds.note_receiver_clock(exporter.clock_offset, elsewhere=not exporter.endpoint.loopback)
            announcer.clock(self._feeds.warn_of_clocks())
            sent = sender.send_all(self._feeds.by_path)
            over = unwatched and self._feeds.ended
            drained = sent and self._feeds.drained
            if over and drained:
                return _Stop.OVER
            if session_over and turn_is_asked_for(self._directory):
                logger.info("the sidecar of a session that began later, or a send, takes over")
                return _Stop.TURN
            if not over or len(self._feeds.by_path) > rings:  # an attempt that came later is tried for as long
                rings, over_since = len(self._feeds.by_path), time.monotonic()
            if not (over and self._feeds.told):
                told_since = time.monotonic()
            last = last or time.monotonic() - over_since > self._linger or time.monotonic() - told_since > FAREWELL
            if last or time.monotonic() >= self._leave_at:
                if not drained and not self._feeds.told:
                    logger.warning("giving up; records that are not sent stay in %s", self._directory)
                return _Stop.GAVE_UP
            pause = POLL if sent else min(LONGEST_PAUSE, 2 * pause)
            self._pause(max(pause, sender.delay))

    def _discover(self) -> None:
        self._feeds.discover()
        if self._session is None and not self._feeds.by_path:
            self._tell_of_waiting()

    def _tell_of_waiting(self) -> None:
        """Log that rings are waited for: at once, and as a warning after a while without one."""
        now = time.monotonic()
        due, level = self._waiting or (now, logging.INFO)
        if now >= due:
            logger.log(
                level,
                "no rings are in %s yet; a job that is to use this sidecar runs with OTEL_TRAIN_SIDECAR=external and "
                "OTEL_TRAIN_RING_DIR=%s",
                self._directory,
                self._directory,
            )
            due = now + WAITING if level == logging.INFO else math.inf
        self._waiting = due, logging.WARNING


def run_sidecar(directory: Path, **options: Any) -> SidecarEnd:
    """Run a sidecar in this process until it is done, and return why it has ended.

    SIGTERM winds it up, a second one or SIGINT ends it after one more try to send. SIGUSR1 and SIGUSR2 are the ranks',
    and change nothing here: Slurm signals whole steps.

    Args:
        directory: Directory of the rings.
        **options: Options of `Sidecar`.

    Raises:
        RingError: The directory can't be made or is somebody else's.
    """
    prepare_directory(directory)
    sidecar = Sidecar(directory, **options)
    others = dict.fromkeys((signal.SIGUSR1, signal.SIGUSR2), _ignore)
    with sidecar.wakeup.handling({signal.SIGTERM: sidecar.wind_up, signal.SIGINT: sidecar.stop, **others}):
        return sidecar.run()


def _ignore() -> None:
    pass
