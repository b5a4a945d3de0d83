"""Whether the receiver takes what is sent: a file in the ring directory that the sidecar writes and ranks read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

STATUS_NAME = "sidecar.status"
OK, FAILING = "ok", "failing"
MAX_BYTES = 16384
"""Bytes of the file at most; a longer one was not written by a sidecar."""
_MAX_TEXT = 1000
"""Characters of a text at most."""


class DeliveryStatus(NamedTuple):
    """Last answer of the receiver, as the sidecar learnt it."""

    state: str = OK
    """`OK` or `FAILING`."""
    cause: str = ""
    """Short and the same for the same fault, such as "UNAVAILABLE" or "HTTP 404"; for logging each cause once."""
    text: str = ""
    """Answer of the receiver, or of the attempt to reach it."""
    address: str = ""
    """Address at which the receiver was tried."""
    advice: str = ""
    """Remedy, one sentence; empty where there is none."""
    since: float = 0.0
    """Time since which it is so, in seconds since the epoch."""
    refusal: str = ""
    """Last words of the receiver about points that it refused for good; empty where it has refused none."""
    clock: str = ""
    """The clock that is wrong here, if any, by how much, and what to do."""

    @property
    def failing(self) -> bool:
        """Whether nothing is delivered at present."""
        return self.state == FAILING

    def __str__(self) -> str:
        text = f": {self.text}" if self.text else ""
        advice = f". {self.advice}" if self.advice else ""
        return f"{self.address} does not take what is recorded ({self.cause}{text}){advice}"


def write_status(directory: Path, status: DeliveryStatus) -> None:
    """Replace the directory's status file, whole or not at all.

    Raises:
        OSError: It can't be written.
    """
    content = {name: value[:_MAX_TEXT] if isinstance(value, str) else value for name, value in status._asdict().items()}
    new = directory / f"{STATUS_NAME}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
    new.replace(directory / STATUS_NAME)


def read_status(directory: Path) -> DeliveryStatus | None:
    """Return the status that the sidecar wrote last; None where there is none yet or the file is not a sidecar's."""
    try:
        descriptor = os.open(directory / STATUS_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        status = DeliveryStatus(**json.loads(data)) if len(data) <= MAX_BYTES else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    if status is None or status.state not in (OK, FAILING):
        return None
    texts = (status.cause, status.text, status.address, status.advice, status.refusal, status.clock)
    fits = all(isinstance(text, str) for text in texts) and isinstance(status.since, int | float)
    return status if fits else None
