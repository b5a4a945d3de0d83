"""Store requests in the inbox, those that wait in one transaction."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)

from otel_train.bridge.decode import decode
from otel_train.bridge.errors import InboxFullError
from otel_train.bridge.inbox import Inbox
from otel_train.bridge.request_parts import parse_request
from otel_train.log_once import OnceLogger, OutageLogger

logger = logging.getLogger(__name__)

REQUESTS_PER_TRANSACTION = 64
"""Requests that are stored in one transaction, where that many wait: each transaction waits for the disk."""


@dataclass(slots=True)
class Counts:
    """Points and requests since the start that did not become new points."""

    duplicates: int = 0
    late: int = 0
    refused_points: int = 0
    refused_requests: int = 0


class RequestStore:
    """Stores requests, which come as bytes, on a thread of its own: SQLite takes one transaction at a time.

    Args:
        inbox: The destination of the points.
        now_ns: The clock for their arrival.
    """

    def __init__(self, inbox: Inbox, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.counts = Counts()
        self._inbox = inbox
        self._now_ns = now_ns
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="otel_train-bridge-inbox")
        self._waiting: deque[tuple[bytes, Future[ExportMetricsServiceResponse]]] = deque()
        self._outages = OutageLogger(logger)
        self._warnings = OnceLogger(logger)

    def submit(self, request: bytes) -> Future[ExportMetricsServiceResponse]:
        """Queue a request, and return the answer to it, which comes when its points are durable.

        The answer may be an error: DecodeError for bytes that are not a request, else what the inbox raises.
        """
        answer: Future[ExportMetricsServiceResponse] = Future()
        self._waiting.append((request, answer))
        self._thread.submit(self._store_waiting)
        return answer

    def close(self) -> None:
        """Wait for the requests that are being stored."""
        self._thread.shutdown()

    def _store_waiting(self) -> None:
        """Store requests that wait, and answer them when all are durable; one that can't be stored is refused alone."""
        waiting = [self._waiting.popleft() for _ in range(min(REQUESTS_PER_TRANSACTION, len(self._waiting)))]
        # A sender may have given up meanwhile.
        requests = [request for request in waiting if request[1].set_running_or_notify_cancel()]
        answers: list[ExportMetricsServiceResponse | Exception] = []
        try:
            with self._inbox.transaction() if len(requests) > 1 else nullcontext():
                for data, _ in requests:
                    try:
                        answers.append(self._store(data))
                    except Exception as error:  # noqa: BLE001  # its own sender is told
                        answers.append(error)
        except sqlite3.Error as error:
            answers = [error] * len(requests)
        for (_, future), answer in zip(requests, answers, strict=True):
            if isinstance(answer, Exception):
                self._log_failure(answer)
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _store(self, data: bytes) -> ExportMetricsServiceResponse:
        parsed = parse_request(data)
        decoded = decode(parsed.request)
        added = self._inbox.add(decoded.points, self._now_ns(), decoded.stamped_apart)
        rejected = parsed.lost + decoded.rejected + added.refused
        if decoded.settings or decoded.ends:
            with self._inbox.transaction():
                rejected += self._inbox.jobs.take(decoded.settings, decoded.ends)
        self._outages.worked("the inbox takes points again")
        self.counts.duplicates += added.duplicates
        self.counts.late += added.late
        self.counts.refused_points += rejected
        if not rejected:
            return ExportMetricsServiceResponse()
        beyond = "the run has too many series (--max-series) or settings, or the step too many points"
        is_beyond = rejected > parsed.lost + decoded.rejected
        reason = "; ".join(filter(None, (parsed.reason, decoded.reason, beyond if is_beyond else "")))
        message = "points are refused, their sender is told: %s; bridge.points.refused counts them"
        self._warnings.warn(message, message, reason)
        return ExportMetricsServiceResponse(
            partial_success=ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message=reason)
        )

    def _log_failure(self, error: Exception) -> None:
        if isinstance(error, sqlite3.Error | InboxFullError):
            self._outages.failed("the inbox refuses points, senders are asked to try again: %s", error)
