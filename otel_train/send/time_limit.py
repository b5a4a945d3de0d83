"""End a delivery in time, or when a signal asks for it, and with it each request."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from typing import Self

from otel_train.endpoint import Endpoint
from otel_train.otlp.answers import Answer, Verdict, of_failure
from otel_train.otlp.exporter import Exporter
from otel_train.wakeup import Wakeup

SPARE = 1.5
"""Seconds that a request may take longer than its time: gRPC's own bound, which says why, is a second later."""


class TimeLimit:
    """Time until which something may go on, or until a signal.

    Args:
        until: That time, of `time.monotonic`.
    """

    def __init__(self, until: float) -> None:
        self._until = until
        self.stopped = False
        """Whether a signal has asked for the end."""
        self.wakeup = Wakeup()
        """Ends a pause."""

    def stop(self) -> None:
        """End now; for a signal's handler."""
        self.stopped = True
        self.wakeup.set()

    @property
    def left(self) -> float:
        """Seconds that are left; 0 at the end."""
        return 0.0 if self.stopped else max(0.0, self._until - time.monotonic())

    def pause(self, seconds: float) -> None:
        """Wait that long, or until the end."""
        self.wakeup.wait(min(seconds, self.left))

    def __str__(self) -> str:
        return "a signal ended it" if self.stopped else "the time was over; give more by --timeout"


class BoundedExporter:
    """Sends requests while there is time, none of which goes on after it.

    Args:
        endpoint: The receiver.
        limit: The time.
    """

    def __init__(self, endpoint: Endpoint, limit: TimeLimit) -> None:
        self._exporter = Exporter(endpoint)
        self._limit = limit
        self.out_of_time = Answer(verdict=Verdict.WAIT, cause="time", text=str(limit))
        """The answer to requests that come after the end, which nobody was sent."""
        self.is_cut = False
        """Whether the newest request had less time than one may take: it may end without an answer for that."""

    @property
    def endpoint(self) -> Endpoint:
        """The receiver."""
        return self._exporter.endpoint

    def send(self, body: bytes) -> Answer:
        """Send one request and return its answer.

        It goes on in a thread, for no library bounds how long the system looks a name up.
        """
        left = self._limit.left
        if not left:
            return self.out_of_time
        self.is_cut = left < self.endpoint.timeout
        answer = Future[Answer]()
        threading.Thread(target=self._answer, args=(body, left, answer), daemon=True).start()
        wait([answer], left + SPARE)
        return answer.result() if answer.done() else of_failure(f"no answer in {left:.3g} s; its name may be looked up")

    def _answer(self, body: bytes, longest: float, answer: Future[Answer]) -> None:
        try:
            answer.set_result(self._exporter.send(body, longest=longest))
        except Exception as error:  # noqa: BLE001  # it is raised again where it is waited for
            answer.set_exception(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._exporter.close()
