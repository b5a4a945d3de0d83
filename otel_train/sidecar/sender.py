"""Bring what rings hold to a receiver: in requests that it takes, and without what it refuses for good.

What may heal is waited for. What is too large is sent in smaller pieces. Where the data may be at fault, the ring is
sent alone, then fewer of its records, then one record, then parts of its points, so that only the bad ones are lost;
and only after the receiver has shown that it takes something else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from otel_train.otlp.answers import Answer, Verdict
from otel_train.sidecar.announcer import Announcer
from otel_train.sidecar.feed import MAX_BYTES, MAX_POINTS, Batch, RingFeed
from otel_train.sidecar.points import Part, PointBuilder

LONGEST_RUN = 64
"""Batches of a ring that are sent before the next look at what else there is to do."""
LONGEST_DELAY = 10.0
"""Seconds that a receiver may ask to wait; as the SDK does, a longer wish is no reason to lose what rings overwrite."""
TRIES, UNCLEAR_TRIES = 2, 4
"""Tries of what a receiver refuses, before parts of it are tried: where its status says that the data are wrong, and
where it may as well be the receiver's own fault."""
MOST_REFUSALS = 64
"""Refused parts of one record after which the rest of what was refused is given up."""
REPEATED_REFUSALS = 4
"""Likewise, of a record that the receiver may have already."""
HOPELESS = 16
"""Records of a ring that are refused whole in a row, after which its batches are dropped without a look at each."""
LEAST_BYTES = 1024
"""No receiver's bound is looked for below this."""
EXHAUSTED_TRIES = 3
"""Answers that something is exhausted after which smaller requests are tried."""


class Sends(Protocol):
    """What sends one request."""

    def send(self, body: bytes) -> Answer:
        """Send it and return what came of it."""


@dataclass(frozen=True, slots=True)
class _Ready:
    path: Path
    feed: RingFeed
    batch: Batch
    parts: list[Part]


@dataclass(slots=True)
class _Trouble:
    """What is known of a ring whose data a receiver refuses."""

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
        announcer: Who is told.
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
        self._exhausted = 0
        self._acknowledged = 0
        """Requests that were taken."""
        self.delay = 0.0
        """Seconds that the receiver asks to be left alone."""

    def send_all(self, feeds: Mapping[Path, RingFeed]) -> bool:
        """Send what is there, for a while at most, and tell whether all of it was acknowledged.

        What ranks record meanwhile waits for the next look: a request for each record would cost many times as much.
        """
        self.delay = 0.0
        for _ in range(LONGEST_RUN):
            ready = self._next_batches(feeds)
            again = any(each.batch.full for each in ready)
            for request in self._requests(ready):
                done = self._deliver(request)
                if done is None:
                    return False
                again = again or not done
            if not again:
                return True
        return True

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
        for each in ready:
            added, count = sum(len(part.body) for part in each.parts), each.batch.points
            alone = each.path in self._troubles
            if request and (alone or size + added > self._max_bytes or points + count > MAX_POINTS):
                yield request
                request, size, points = [], 0, 0
            request.append(each)
            size, points = size + added, points + count
            if alone:
                yield request
                request, size, points = [], 0, 0
        if request:
            yield request

    def _deliver(self, request: Sequence[_Ready]) -> bool | None:
        """Send a request and do what its answer asks for.

        Returns:
            True where all of it is done, False where it must be tried at once in another way, None where nothing can
            be sent for the time being.
        """
        answer = self._post(request)
        if answer.taken:
            self._take(request, answer)
            return True
        if answer.verdict is Verdict.TOO_LARGE:
            return self._shrink(request, answer)
        if answer.verdict is Verdict.DATA:
            if len(request) == 1:
                return self._narrow(request[0], answer)
            results = [self._deliver([each]) for each in request]
            return None if None in results else all(results)
        return self._wait(request, answer)

    def _post(self, request: Sequence[_Ready]) -> Answer:
        """Send what a request holds, in one piece where it fits, what describes the sending last."""
        answer = Answer(verdict=Verdict.TAKEN)
        for each in request:
            with self._guarded(each.path):
                each.feed.sending(each.batch)
        parts = sorted((part for each in request for part in each.parts), key=lambda part: part.live)
        for body in _joined(parts, self._max_bytes):
            answer = self._exporter.send(body)
            if not answer.taken:
                break
        if answer.unanswered:
            for each in request:
                each.feed.unanswered(each.batch)
        return answer

    def _take(self, request: Sequence[_Ready], answer: Answer) -> None:
        self._exhausted = 0
        if any(each.parts for each in request):
            self._acknowledged += 1
            self._announcer.taken()
        for index, each in enumerate(request):
            # Which of the rings a partial success is about, it does not say.
            rejected = min(answer.rejected, sum(ready.batch.points for ready in request)) if index == 0 else 0
            if rejected:
                self._announcer.refused(answer, each.path.name, each.batch.names, rejected)
            trouble = self._troubles.get(each.path)
            if trouble is not None:
                trouble.tries = trouble.whole = 0
            self._commit(each, rejected, grows=True)

    def _commit(self, ready: _Ready, refused: int, *, grows: bool = False) -> None:
        with self._guarded(ready.path):
            ready.feed.commit(ready.batch, refused=refused, grows=grows)
            trouble = self._troubles.get(ready.path)
            if trouble is not None and ready.feed.position >= trouble.end and not trouble.whole:
                del self._troubles[ready.path]

    def _wait(self, request: Sequence[_Ready], answer: Answer) -> bool | None:
        """Keep the data: the receiver, the way to it or its configuration is at fault."""
        self._announcer.failing(answer)
        self.delay = answer.delay if answer.delay <= LONGEST_DELAY else 0.0
        self._exhausted = self._exhausted + 1 if answer.cause == "RESOURCE_EXHAUSTED" and not answer.delay else 0
        size = sum(len(part.body) for each in request for part in each.parts)
        if self._exhausted >= EXHAUSTED_TRIES and size > 64 * LEAST_BYTES:
            self._exhausted = 0
            self._max_bytes = size // 2
        return None

    def _shrink(self, request: Sequence[_Ready], answer: Answer) -> bool | None:
        """Send less at once from now on; a single point that is too large is dropped."""
        parts = [part for each in request for part in each.parts]
        size = min(self._max_bytes, sum(len(part.body) for part in parts))
        if size <= LEAST_BYTES or all(part.points == 1 for part in parts):
            if len(request) > 1:
                results = [self._deliver([each]) for each in request]
                return None if None in results else all(results)
            return self._pick_apart(request[0], answer)
        self._max_bytes = size // 2
        self._announcer.note("the receiver takes no large requests (%s): they are split", answer.text)
        return False

    # -- data that are refused -----------------------------------------------------------------------------------

    def _narrow(self, ready: _Ready, answer: Answer) -> bool | None:
        """Try again, then with fewer records, then without those points of a record that are refused."""
        batch = ready.batch
        if batch.metrics is None:
            # It is about the live points alone: the next ones may be taken.
            self._refuse(ready, answer, batch.points, batch.names)
            return True
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
            return False
        if not self._is_shown(ready, answer, trouble):
            return self._wait([ready], answer)
        trouble.tries = 0
        if hopeless:
            self._refuse(ready, answer, batch.points, batch.names)
            return True
        return self._pick_apart(ready, answer)

    def _is_shown(self, ready: _Ready, answer: Answer, trouble: _Trouble) -> bool:
        """Tell whether the receiver takes something, so that it is the data that it refuses.

        Where it may be its own fault, it must take something now.
        """
        if answer.definite and self._acknowledged > trouble.acknowledged:
            return True
        shown = False
        with self._guarded(ready.path):
            shown = self._post_points(ready.feed.probe()).taken
        if shown:
            self._acknowledged += 1
            self._announcer.taken()
        return shown

    def _pick_apart(self, ready: _Ready, answer: Answer) -> bool | None:
        """Send a record's points in ever smaller parts, and drop those that are refused."""
        batch, trouble = ready.batch, self._troubles.setdefault(ready.path, _Trouble())
        repeated = batch.repeated or (trouble.joint and answer.repetition)
        most = REPEATED_REFUSALS if repeated and answer.definite else MOST_REFUSALS
        groups = deque(builder for builder in (batch.metrics, batch.live) if builder is not None)
        refused: list[PointBuilder] = []
        taken: set[str] = set()
        refusals = 0
        while groups:
            group = groups.popleft()
            halves = group.halves() if group.points > 1 and refusals < most else ()
            # A receiver with faults of its own is asked once more before a point is given up.
            for part in halves or (() if answer.definite else (group,)):
                result = self._post_points(part)
                if result.taken:
                    taken.update(part.names)
                elif result.verdict not in (Verdict.DATA, Verdict.TOO_LARGE):
                    return self._wait([ready], result)
                elif halves:
                    refusals += 1
                    groups.append(part)
                else:
                    refused.append(part)
            if not halves and answer.definite:
                refused.append(group)
        names = [name for group in refused for name in group.names]
        trouble.whole = 0 if taken or repeated else trouble.whole + 1
        trouble.end = max(trouble.end, batch.cursor.position)
        if taken and not repeated:
            ready.feed.leave_out(set(names) - taken)
        self._refuse(ready, answer, 0 if repeated else sum(group.points for group in refused), names)
        return True

    def _post_points(self, points: PointBuilder) -> Answer:
        """Send some of a record's points, each part of them a request."""
        answer = Answer(verdict=Verdict.TAKEN)
        for part in points.parts(self._max_bytes):
            answer = self._exporter.send(part.body)
            if not answer.taken:
                break
        return answer

    def _refuse(self, ready: _Ready, answer: Answer, count: int, names: list[str]) -> None:
        if count:
            self._announcer.refused(answer, ready.path.name, names, count)
        self._commit(ready, count)


def _joined(parts: Sequence[Part], limit: int) -> Iterator[bytes]:
    """Join parts to requests of `limit` bytes at most: one after the other they are a request too."""
    request: list[bytes] = []
    size = 0
    for part in parts:
        if request and size + len(part.body) > limit:
            yield b"".join(request)
            request, size = [], 0
        request.append(part.body)
        size += len(part.body)
    if request:
        yield b"".join(request)
