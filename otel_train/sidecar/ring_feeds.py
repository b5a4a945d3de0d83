"""The feeds of all rings in a directory: new rings are added, old attempts removed, damaged rings left out."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from otel_train.exceptions import RingError
from otel_train.host_clock import COSTS, ClockOffset, Reference, remedy
from otel_train.log_once import OnceLogger
from otel_train.ring import Identity, ring_files
from otel_train.sidecar.feed import RingFeed

logger = logging.getLogger(__name__)

SAY_AGAIN = 3600.0
"""Seconds without a clock that is wrong after which one is logged once more."""
KEPT_ATTEMPTS, KEPT_AT_ALL = 2, 16
"""Attempts of a run, and of all runs in a directory, whose rings are kept for people after they were sent."""


class RingFeeds:
    """Feeds by the paths of their rings.

    Args:
        directory: Directory of the rings.
        rank_interval: Seconds between two exports of a rank's own values; None for what each job has set.
        restarts: How often the sidecar was started again.
    """

    def __init__(self, directory: Path, rank_interval: float | None, restarts: int) -> None:
        self._directory = directory
        self._rank_interval = rank_interval
        self._restarts = restarts
        self._warnings = OnceLogger(logger, again_after=SAY_AGAIN)
        self.left_out: dict[Path, str] = {}
        """Rings that are left out for good, and why."""
        self.by_path: dict[Path, RingFeed] = {}
        """The feeds."""

    def discover(self) -> None:
        """Add the rings that are new, and remove those of old attempts that are sent."""
        for path in ring_files(self._directory):
            if path not in self.by_path and path not in self.left_out:
                with self.guarded(path):
                    self.by_path[path] = RingFeed(path, self._rank_interval, self._restarts)
        kept = _kept_attempts(feed.reader.identity for feed in self.by_path.values())
        for path, feed in list(self.by_path.items()):
            if feed.reader.identity.attempt not in kept and feed.ended and feed.drained:
                feed.reader.close()
                del self.by_path[path]
                with contextlib.suppress(OSError):
                    path.unlink()

    def note_receiver_clock(self, offset: ClockOffset | None, *, elsewhere: bool) -> None:
        """Have the first rank of each attempt here tell of this machine's clock, as the receiver's has it.

        Args:
            offset: This clock's; None where the receiver tells no date.
            elsewhere: Whether the receiver is not on this machine, with the same clock.
        """
        for feed in self.by_path.values():
            feed.clock.elsewhere = offset if elsewhere else None
            if feed.reader.identity.local_rank == 0:
                feed.clock.receiver = offset

    def warn_of_clocks(self) -> str:
        """Warn of clocks that are wrong, once for each host and reference, and return the text of one of them."""
        text = ""
        for feed in self.by_path.values():
            identity = feed.reader.identity
            for reference, offset in feed.clock.offsets().items():
                if offset.wrong and not (feed.ended and feed.drained):
                    which = "the other ranks' clocks" if reference is Reference.RANKS else "the receiver's clock"
                    text = f"the clock of {identity.host} (rank {identity.rank}) is {offset} of {which}"
                    text = f"{text}, to {offset.uncertainty:.3g} s. {remedy()}. {COSTS}"
                    self._warnings.warn(f"clock {identity.host} {reference}", "%s", text)
        return text

    def reopen(self) -> None:
        """Read all rings anew: another sidecar may have moved their cursors."""
        for feed in self.by_path.values():
            feed.reader.close()
        self.by_path.clear()
        self.discover()

    @property
    def ended(self) -> bool:
        """Whether no more records will come."""
        return all(feed.ended for feed in self.by_path.values())

    @property
    def drained(self) -> bool:
        """Whether all records have been acknowledged."""
        return all(feed.drained for feed in self.by_path.values())

    @property
    def told(self) -> bool:
        """Whether a receiver has all that is worth waiting for: the records, and that a job has failed."""
        return self.drained and all(feed.end_is_told for feed in self.by_path.values())

    @contextlib.contextmanager
    def guarded(self, path: Path) -> Iterator[None]:
        """Leave a ring out for good when the block fails: damage to one must not stop the others."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # damaged values may lead to any error
            feed = self.by_path.pop(path, None)
            if feed is not None:
                feed.reader.close()
            damaged = f"{path} is damaged: its values can't be sent ({error!r:.200}); move it away"
            self.left_out[path] = str(error) if isinstance(error, RingError) else damaged
            logger.warning("%s", self.left_out[path])


def _kept_attempts(identities: Iterable[Identity]) -> set[int]:
    """Return the attempts whose rings stay: the newest ones of each run."""
    kept: list[int] = []
    newest = sorted({(identity.attempt, identity.run_id) for identity in identities}, reverse=True)
    runs = Counter[str]()
    for attempt, run_id in newest:
        runs[run_id] += 1
        if runs[run_id] <= KEPT_ATTEMPTS:
            kept.append(attempt)
    return set(kept[:KEPT_AT_ALL])
