"""Report a receiver's answers: in the log once for each cause, and in the status file that the ranks read."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path

from otel_train.delivery import FAILING, DeliveryStatus, write_status
from otel_train.endpoint import Endpoint
from otel_train.log_once import OnceLogger
from otel_train.otlp.answers import Answer

logger = logging.getLogger(__name__)

FAILING_AFTER = 2.0
"""Seconds without a success after which ranks are told: a collector that is restarted is not worth it."""
SAY_AGAIN = 600.0
"""Seconds without a cause after which it is logged once more."""


class Announcer:
    """Reports deliveries to people.

    Args:
        directory: Directory of the rings, with the status file.
        endpoint: Address of the receiver.
    """

    def __init__(self, directory: Path, endpoint: Endpoint) -> None:
        self._directory = directory
        self._address = str(endpoint)
        self._warnings = OnceLogger(logger, again_after=SAY_AGAIN)
        self._failing_since: float | None = None
        """On a clock that is never set."""
        self._logged = False
        self._status = DeliveryStatus(address=self._address)
        self._topic = ""
        """Last refusal, without numbers."""
        self._written: tuple[bool, str, str, str, bool] | None = None

    def taken(self) -> None:
        """Note that the receiver has acknowledged."""
        self._failing_since = None
        if self._logged:
            self._logged = False
            logger.info("the receiver at %s acknowledges again", self._address)
        self._write(DeliveryStatus(address=self._address, since=time.time(), **self._kept()))

    def failing(self, answer: Answer) -> None:
        """Note that nothing can be delivered for the time being."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now - answer.seconds
        self._logged |= self._warnings.warn(
            f"{answer.cause} {answer.what_to_do}",
            "the receiver at %s does not acknowledge (%s: %s); the rings keep the records. %s",
            self._address,
            answer.cause,
            answer.text,
            answer.what_to_do,
        )
        if now - self._failing_since >= FAILING_AFTER:
            self._write(
                DeliveryStatus(
                    state=FAILING,
                    cause=answer.cause,
                    text=answer.text,
                    address=self._address,
                    advice=answer.what_to_do,
                    since=time.time() - (now - self._failing_since),
                    **self._kept(),
                )
            )

    def refused(self, answer: Answer, source: str, names: list[str], count: int) -> None:
        """Note that points were refused for good."""
        named = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
        self._topic = f"{answer.cause} {answer.topic} {named}"
        self._write(self._status._replace(refusal=f"{answer.cause}: {answer.text}: {named}"))
        self._warnings.warn(
            f"refused {source} {answer.cause} {answer.topic if answer.taken else names[:1]}",
            "the receiver at %s refuses %d points of %s for good (%s: %s): %s%s; they are counted as %s",
            self._address,
            count,
            source,
            answer.cause,
            answer.text,
            "some of " if answer.taken else "",
            named,
            answer.reason,
        )

    def warned(self, answer: Answer) -> None:
        """Note what a receiver says of a request that it took whole."""
        self._warnings.warn(
            f"{answer.cause} {answer.topic}",
            "the receiver at %s has taken everything and warns (%s): %s",
            self._address,
            answer.cause,
            answer.text,
        )

    def clock(self, text: str) -> None:
        """Note whether a clock is wrong, and which; the log has it already."""
        if bool(text) != bool(self._status.clock):
            self._write(self._status._replace(clock=text))

    def note(self, message: str, *arguments: object) -> None:
        """Log a message once."""
        self._warnings.warn(message, message, *arguments)

    def _kept(self) -> dict[str, str]:
        return {"refusal": self._status.refusal, "clock": self._status.clock}

    def _write(self, status: DeliveryStatus) -> None:
        self._status = status
        content = status.failing, status.cause, status.advice, self._topic, bool(status.clock)
        if self._written != content:
            self._written = content
            with contextlib.suppress(OSError):  # a full disk: the log has it
                write_status(self._directory, status)
