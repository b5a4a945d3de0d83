"""Send what rings hold to a receiver: in requests that it takes, and without the points that it refuses for good.

A failure that may end is waited for. A request that is too large is sent in smaller pieces. Where the data may be at
fault, the ring is sent alone, then fewer of its records, then one record, then groups of its points, so that only the
bad ones are lost; and only after the receiver has shown that it takes something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum, auto
from pathlib import Path

from otel_train.otlp.answers import Answer, Verdict
from otel_train.sidecar.announcer import Announcer
from otel_train.sidecar.feed import MAX_BYTES, MAX_POINTS, Batch, RingFeed
from otel_train.sidecar.isolation import isolate
from otel_train.sidecar.points import Part, PointBuilder
from otel_train.sidecar.request_bodies import Sends, joined, rejected_of, send_bodies

LONGEST_RUN = 64
"""Batches of a ring that are sent before the sidecar looks for other work."""
LONGEST_DELAY = 10.0
"""Seconds that a receiver may ask to wait. A longer wish is ignored, as by the SDK: rings would be overwritten."""
TRIES, UNCLEAR_TRIES = 2, 4
"""Tries of a refused request before parts of it are tried: where the status says that the data are wrong, and where it
may as well be the receiver's own fault."""
MOST_REFUSALS = 64
"""Refused groups of one record's points after which the other refused points are given up."""
REPEATED_REFUSALS = 4
"""The same for a record that the receiver may have already."""
HOPELESS = 16
"""Records of a ring that are refused whole in a row, after which its batches are dropped undivided."""
LEAST_BYTES = 1024
"""Least size of a request that is tried as a receiver's bound."""
EXHAUSTED_TRIES = 3
"""Answers that something is exhausted after which smaller requests are tried."""


class _Outcome(IntEnum):
    """How a request ended; of several requests the largest one counts."""

    DONE = auto()
    """All of it is done."""
    RETRY = auto()
    """It must be tried at once in another way."""
    WAIT = auto()
    """Nothing can be sent for the time being."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A ring's batch that is ready to be sent."""

    path: Path
    feed: RingFeed
    batch: Batch
    parts: list[Part]


@dataclass(slots=True)
class _Trouble:
    """State of a ring whose data a receiver refuses."""

    end: int = 0
    """The position up to which the cause is looked for."""
    joint: bool = False
    """Whether several records were refused at once: a receiver may have kept some of them."""
    acknowledged: int = 0
    """Requests that the receiver had taken before."""
    tries: int = 0
    whole: int = 0
    """Records refused whole in a row."""


class Sender:
    """Sends batches of rings and moves their cursors.

    Args:
        exporter: The connection.
        announcer: Logs the answers.
        guarded: Makes the context in which a ring is touched: it leaves out one that raises.
    """

    def __init__(
        self, exporter: Sends, announcer: Announcer, guarded: Callable[[Path], AbstractContextManager[None]]
    ) -> None:
        self._exporter = exporter
        self._announcer = announcer
        self._guarded = guarded
        self._max_bytes = MAX_BYTES
        self._troubles: dict[Path, _Trouble] = {}
        self._suspects: set[Path] = set()
        """Rings of requests of which points were rejected; each is sent alone until nothing of it is."""
        self._exhausted = 0
        self._acknowledged = 0
        """Requests that were taken."""
        self.delay = 0.0
        """Seconds that the receiver asks to be left alone."""

    def send_all(self, feeds: Mapping[Path, RingFeed]) -> bool:
        """Send all records of the rings, for a while at most, and tell whether all of them were acknowledged.

        Records that ranks write meanwhile wait for the next call: a request for each would cost many times as much.
        """
        self.delay = 0.0
        self._send_clocks(feeds)
        for _ in range(LONGEST_RUN):
            ready = self._next_batches(feeds)
            again = any(item.batch.full for item in ready)
            for request in self._requests(ready):
                outcome = self._deliver(request)
                if outcome is _Outcome.WAIT:
                    return False
                again = again or outcome is _Outcome.RETRY
            if not again:
                return True
        return True

    def _send_clocks(self, feeds: Mapping[Path, RingFeed]) -> None:
        """Tell of clocks that are wrong, in a request of its own: those with their ranks' times may be refused."""
        parts: list[Part] = []
        for path, feed in list(feeds.items()):
            with self._guarded(path):
                builder = None if feed.ended else feed.clock.apart()
                parts += self._parts(builder)
        if parts:
            send_bodies(self._exporter, joined(parts, self._max_bytes))  # an answer that matters comes to records too

    def _next_batches(self, feeds: Mapping[Path, RingFeed]) -> list[_Ready]:
        ready = []
        for path, feed in list(feeds.items()):
            with self._guarded(path):
                batch = self._next_batch(feed, live=path not in self._troubles)
                if batch is not None:
                    ready.append(_Ready(path, feed, batch, self._parts(batch.metrics) + self._parts(batch.live)))
        return ready

    def _next_batch(self, feed: RingFeed, *, live: bool) -> Batch | None:
        """Return a ring's next batch: one record, or as many as fit into one part, in which they keep their order."""
        while True:
            batch = feed.next(self._max_bytes, live=live)
            if batch is None or batch.records < 2 or len(self._parts(batch.metrics)) < 2:
                return batch
            feed.limit = batch.records // 2

    def _parts(self, builder: PointBuilder | None) -> list[Part]:
        return builder.parts(self._max_bytes) if builder is not None else []

    def _requests(self, ready: Sequence[_Ready]) -> Iterator[list[_Ready]]:
        """Join batches to requests that a receiver takes; a ring whose data are refused is sent alone."""
        request: list[_Ready] = []
        size = points = 0
        for item in ready:
            added, count = sum(len(part.body) for part in item.parts), item.batch.points
            alone = item.path in self._troubles or item.path in self._suspects
            if request and (alone or size + added > self._max_bytes or points + count > MAX_POINTS):
                yield request
                request, size, points = [], 0, 0
            request.append(item)
            size, points = size + added, points + count
            if alone:
                yield request
                request, size, points = [], 0, 0
        if request:
            yield request

    def _deliver(self, request: Sequence[_Ready]) -> _Outcome:
        """Send a request and act on its answer."""
        answers = self._post(request)
        answer = answers[-1]
        if answer.taken:
            self._take(request, answers)
            return _Outcome.DONE
        if answer.verdict is Verdict.TOO_LARGE:
            return self._shrink(request, answer)
        if answer.verdict is Verdict.DATA:
            if len(request) == 1:
                return self._narrow(request[0], answer)
            return max([self._deliver([item]) for item in request])
        return self._wait(request, answer)

    def _post(self, request: Sequence[_Ready]) -> list[Answer]:
        """Send a request, in one piece where it fits, with the live points last."""
        for item in request:
            with self._guarded(item.path):
                item.feed.sending(item.batch)
        parts = sorted((part for item in request for part in item.parts), key=lambda part: part.live)
        answers = send_bodies(self._exporter, joined(parts, self._max_bytes))
        if answers[-1].unanswered:
            for item in request:
                item.feed.unanswered(item.batch)
        return answers

    def _take(self, request: Sequence[_Ready], answers: Sequence[Answer]) -> None:
        self._exhausted = 0
        if any(item.parts for item in request):
            self._acknowledged += 1
            self._announcer.taken()
        for answer in answers:
            if answer.text and not answer.rejected:
                self._announcer.warned(answer)
        rejected = rejected_of(answers, [item.batch.points for item in request])
        self._note_rejected(request, answers, rejected)
        for item, counts in zip(request, rejected, strict=True):
            trouble = self._troubles.get(item.path)
            if trouble is not None:
                trouble.tries = trouble.whole = 0
            self._commit(item, counts, grows=True)

    def _note_rejected(
        self, request: Sequence[_Ready], answers: Sequence[Answer], rejected: Sequence[Counter[str]]
    ) -> None:
        """Log what was rejected of a request that was taken, and have its rings sent alone, to see which it is of."""
        count = sum(counts.total() for counts in rejected)
        if not count:
            self._suspects.difference_update(item.path for item in request)
            return
        self._suspects.update(item.path for item in request)
        source = request[0].path.name if len(request) == 1 else f"{len(request)} rings"
        names = list(dict.fromkeys(name for item in request for name in item.batch.names))
        for answer in answers:
            if answer.rejected:
                self._announcer.refused(answer, source, names, min(answer.rejected, count))

    def _commit(self, ready: _Ready, refused: Mapping[str, int], *, grows: bool = False) -> None:
        with self._guarded(ready.path):
            ready.feed.commit(ready.batch, refused=refused, grows=grows)
            trouble = self._troubles.get(ready.path)
            if trouble is not None and ready.feed.position >= trouble.end and not trouble.whole:
                del self._troubles[ready.path]

    def _wait(self, request: Sequence[_Ready], answer: Answer) -> _Outcome:
        """Keep the data: the receiver, the network or the configuration is at fault."""
        self._announcer.failing(answer)
        self.delay = answer.delay if answer.delay <= LONGEST_DELAY else 0.0
        self._exhausted = self._exhausted + 1 if answer.cause == "RESOURCE_EXHAUSTED" and not answer.delay else 0
        size = sum(len(part.body) for item in request for part in item.parts)
        if self._exhausted >= EXHAUSTED_TRIES and size > 64 * LEAST_BYTES:
            self._exhausted = 0
            self._max_bytes = size // 2
        return _Outcome.WAIT

    def _shrink(self, request: Sequence[_Ready], answer: Answer) -> _Outcome:
        """Send smaller requests from now on; a single point that is too large is dropped."""
        parts = [part for item in request for part in item.parts]
        size = min(self._max_bytes, sum(len(part.body) for part in parts))
        if size <= LEAST_BYTES or all(part.points == 1 for part in parts):
            if len(request) > 1:
                return max([self._deliver([item]) for item in request])
            return self._pick_apart(request[0], answer)
        self._max_bytes = size // 2
        self._announcer.note("the receiver takes no large requests (%s): they are split", answer.text)
        return _Outcome.RETRY

    # -- data that are refused -----------------------------------------------------------------------------------

    def _narrow(self, ready: _Ready, answer: Answer) -> _Outcome:
        """Try again, then with fewer records, then without those points of a record that are refused."""
        batch = ready.batch
        if batch.metrics is None:
            # Only live points were refused: the next ones may be taken.
            ready.feed.refuse_live()
            self._refuse(ready, answer, {answer.reason: batch.points}, batch.names)
            return _Outcome.DONE
        trouble = self._troubles.setdefault(ready.path, _Trouble(acknowledged=self._acknowledged))
        trouble.tries += 1
        new = batch.cursor.position > trouble.end
        trouble.end = max(trouble.end, batch.cursor.position)
        trouble.joint = trouble.joint or batch.records > 1
        if trouble.tries < (TRIES if answer.definite else UNCLEAR_TRIES) and (
            new or (batch.records == 1 and not answer.definite)
        ):
            return self._wait([ready], answer)
        hopeless = trouble.whole >= HOPELESS and answer.definite and not answer.repetition
        if batch.records > 1 and not hopeless:
            ready.feed.limit = batch.records // 2
            return _Outcome.RETRY
        if not self._is_shown(ready, answer, trouble):
            return self._wait([ready], answer)
        trouble.tries = 0
        if hopeless:
            self._refuse(ready, answer, {answer.reason: batch.points}, batch.names)
            return _Outcome.DONE
        return self._pick_apart(ready, answer)

    def _is_shown(self, ready: _Ready, answer: Answer, trouble: _Trouble) -> bool:
        """Tell whether the receiver takes something, so that it is the data that it refuses.

        Where the refusal may be its own fault, it must take something now.
        """
        if answer.definite and self._acknowledged > trouble.acknowledged:
            return True
        shown = False
        with self._guarded(ready.path):
            probe = ready.feed.probe()
            answers = self._post_points(probe)
            if answers[-1].definite:
                ready.feed.refuse_live()
            shown = answers[-1].taken and sum(answer.rejected for answer in answers) < probe.points
        if shown:
            self._acknowledged += 1
            self._announcer.taken()
        return shown

    def _pick_apart(self, ready: _Ready, answer: Answer) -> _Outcome:
        """Send a record's points in ever smaller groups, and drop those that are refused."""
        batch, trouble = ready.batch, self._troubles.setdefault(ready.path, _Trouble())
        repeated = batch.repeated or (trouble.joint and answer.repetition)
        most = REPEATED_REFUSALS if repeated and answer.definite else MOST_REFUSALS
        builders = [builder for builder in (batch.metrics, batch.live) if builder is not None]
        result = isolate(builders, self._post_points, answer, most=most)
        if result.failure is not None:
            return self._wait([ready], result.failure)
        trouble.whole = 0 if result.taken or repeated else trouble.whole + 1
        trouble.end = max(trouble.end, batch.cursor.position)
        if result.taken and not repeated:
            ready.feed.leave_out(set(result.names) - result.taken, answer.reason)
        self._refuse(ready, answer, {} if repeated else result.reasons, result.names)
        return _Outcome.DONE

    def _post_points(self, points: PointBuilder) -> list[Answer]:
        """Send some of a record's points, each part of them a request."""
        return send_bodies(self._exporter, (part.body for part in points.parts(self._max_bytes)))

    def _refuse(self, ready: _Ready, answer: Answer, refused: Mapping[str, int], names: list[str]) -> None:
        count = sum(refused.values())
        if count:
            self._announcer.refused(answer, ready.path.name, names, count)
        self._commit(ready, refused)
