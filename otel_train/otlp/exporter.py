"""Send requests one at a time, without a compression that the receiver lacks."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace

from otel_train.endpoint import Endpoint
from otel_train.host_clock import ClockOffset
from otel_train.otlp.answers import TAKEN, Answer, Verdict
from otel_train.otlp.connection import Connection, connect

logger = logging.getLogger(__name__)


class Exporter:
    """Sends requests to the receiver that the standard `OTEL_EXPORTER_OTLP_*` variables name.

    Args:
        endpoint: The receiver; by default the one of the environment.
    """

    def __init__(self, endpoint: Endpoint | None = None) -> None:
        # The SDK logs every failed request; the users of this class log the cause once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self.endpoint = endpoint or Endpoint.read()
        self._connection: Connection = connect(self.endpoint)
        self._may_lack = self.endpoint.compression != "none"
        """Whether the receiver may lack the compression: it has taken no request yet."""

    def send(self, body: bytes, *, longest: float = math.inf) -> Answer:
        """Send one request, and return the answer.

        Args:
            body: An OTLP message's bytes.
            longest: Seconds that it takes at most, a second try without compression included; a request takes no longer
                than the endpoint's timeout.
        """
        began = time.monotonic()
        answer = self._send(body, longest)
        return answer if answer is TAKEN else replace(answer, seconds=time.monotonic() - began)

    def _send(self, body: bytes, longest: float) -> Answer:
        began, timeout = time.monotonic(), min(self.endpoint.timeout, longest)
        answer = self._connection.send(body, timeout)
        self._may_lack &= not answer.taken
        # A receiver that does not look at the encoding calls the data unreadable.
        suspect = self._may_lack and answer.verdict is Verdict.DATA
        if answer.verdict is not Verdict.COMPRESSION and not suspect:
            return answer
        left = longest - (time.monotonic() - began)
        if left <= 0:
            return answer
        plain = self.endpoint._replace(compression="none")
        connection = connect(plain)
        second = connection.send(body, min(plain.timeout, left))
        if second.verdict is Verdict.WAIT or (suspect and not second.taken):
            # It was not the compression: the receiver has no such service, went away, or refuses the data.
            connection.close()
            return second
        logger.warning("the receiver at %s does not take %s; requests go without it", plain, self.endpoint.compression)
        self._connection.close()
        self.endpoint, self._connection, self._may_lack = plain, connection, False
        return second

    @property
    def clock_offset(self) -> ClockOffset | None:
        """Offset of this machine's clock against the receiver's; None where that does not tell the time."""
        return self._connection.clock.offset

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
