"""Send requests one after the other: pieces of a batch, joined as far as a receiver's bound allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from otel_train.otlp.answers import TAKEN, Answer
from otel_train.sidecar.points import Part


class Sends(Protocol):
    """A connection to a receiver."""

    def send(self, body: bytes) -> Answer:
        """Send one request and return its answer."""


def send_bodies(connection: Sends, bodies: Iterable[bytes]) -> Answer:
    """Send requests until one is not taken, and return the last answer."""
    answer = TAKEN
    for body in bodies:
        answer = connection.send(body)
        if not answer.taken:
            break
    return answer


def joined(parts: Iterable[Part], limit: int) -> Iterator[bytes]:
    """Join parts to requests of `limit` bytes at most: parts that follow each other are a request too."""
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
