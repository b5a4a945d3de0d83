"""Admit requests of every port to the store within one bound, and say why another is refused."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from otel_train.bridge.errors import BusyError, InboxFullError, InvalidRequestError
from otel_train.bridge.request_store import RequestStore
from otel_train.log_once import OnceLogger

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 8 * 2**20
"""Size of a request, as sent and as decompressed; a collector's batch of 8192 points, and a sidecar's request, are some
6 MiB. Empty parts take up to 65 times as much in memory as in a request."""
MAX_WAITING_BYTES = 16 * MAX_MESSAGE_BYTES
"""Size of all requests that wait for the inbox; further ones are refused as retryable."""
RETRY_SECONDS = 5
"""Seconds that a refused sender is asked to wait."""


class Intake:
    """Entrance of all ports: bounds the bytes that wait for the store, and counts the requests that it refuses.

    Its methods are called on the event loop of the ports only.

    Args:
        store: Stores the requests.
    """

    def __init__(self, store: RequestStore) -> None:
        self.counts = store.counts
        self._store = store
        self._waiting_bytes = 0
        self._warnings = OnceLogger(logger)

    @contextmanager
    def holding(self) -> Iterator[Held]:
        """Count the bytes that a block keeps in memory for a request among those that wait."""
        held = Held(self)
        try:
            yield held
        finally:
            self._waiting_bytes -= held.bytes

    def hold(self, count: int) -> None:
        """Count so many more bytes among those that wait.

        Raises:
            BusyError: There is no room for them.
        """
        if self._waiting_bytes + count > MAX_WAITING_BYTES:
            self.counts.refused_requests += 1
            raise BusyError("too many requests at once; try again")
        self._waiting_bytes += count

    async def take(self, request: bytes) -> ExportMetricsServiceResponse:
        """Store a request's points durably, and return the answer to its sender.

        Raises:
            BusyError: It can't be kept now.
            InvalidRequestError: It is not an OTLP metrics request.
        """
        with self.holding() as held:
            held.add(len(request))
            try:
                return await asyncio.wrap_future(self._store.submit(request))
            except (sqlite3.Error, InboxFullError) as error:
                self.counts.refused_requests += 1
                raise BusyError("the inbox can't be written; try again") from error
            except DecodeError as error:
                raise self.invalid(str(error)) from error

    def invalid(self, reason: str, kind: str = "protobuf") -> InvalidRequestError:
        """Count a request that is not OTLP, log each kind once, and return the error that says so.

        Args:
            reason: The reason that its sender is told.
            kind: What is wrong, without what differs from request to request.
        """
        self.counts.refused_requests += 1
        message = "requests are refused, their sender is told: they are not OTLP metrics (%s)"
        self._warnings.warn(kind, message, reason)
        return InvalidRequestError(f"the request is not an ExportMetricsServiceRequest: {reason}")


class Held:
    """The bytes of one request among those that wait.

    Args:
        intake: What counts them.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.bytes = 0

    def add(self, count: int) -> None:
        """Count so many more.

        Raises:
            BusyError: There is no room for them.
        """
        self._intake.hold(count)
        self.bytes += count
