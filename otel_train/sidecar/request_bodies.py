"""Send requests one after the other: pieces of a batch, joined as far as a receiver's bound allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from otel_train.otlp.answers import TAKEN, Answer
from otel_train.sidecar.points import Part


class Sends(Protocol):
    """A connection to a receiver."""

    def send(self, body: bytes) -> Answer:
        """Send one request and return its answer."""


def send_bodies(connection: Sends, bodies: Iterable[bytes]) -> list[Answer]:
    """Send requests until one is not taken, and return the answers; the last one says whether all are."""
    answers = []
    for body in bodies:
        answers.append(connection.send(body))
        if not answers[-1].taken:
            break
    return answers or [TAKEN]


def rejected_of(answers: Iterable[Answer], points: Sequence[int]) -> list[Counter[str]]:
    """Return how many points of each batch were rejected, by reason: no more than were sent.

    A partial success does not say which points it is about: the first batches are taken to have them.

    Args:
        answers: The answers to the requests.
        points: Points of each batch in them.

    Examples:
        >>> from otel_train.otlp.answers import Answer, Verdict
        >>> from otel_train.sidecar.request_bodies import rejected_of
        >>> answer = Answer(verdict=Verdict.TAKEN, rejected=7, text="too old")
        >>> [dict(counts) for counts in rejected_of([answer], [5, 5])]
        [{'too_old': 5}, {'too_old': 2}]
    """
    counts = [Counter[str]() for _ in points]
    for answer in answers:
        left = answer.rejected
        for count, most in zip(counts, points, strict=True):
            taken = min(left, most - count.total())
            if taken > 0:
                count[answer.reason] += taken
                left -= taken
    return counts


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
