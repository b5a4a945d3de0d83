"""Isolate the points of a record that a receiver refuses, by sending ever smaller groups of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from otel_train.otlp.answers import Answer, Verdict
from otel_train.sidecar.points import PointBuilder


@dataclass(slots=True, kw_only=True)
class Isolation:
    """Result of sending a record's points in groups."""

    refused: list[PointBuilder] = field(default_factory=list)
    """Groups that were refused."""
    taken: set[str] = field(default_factory=set)
    """Metrics of which a point was taken."""
    failure: Answer | None = None
    """The answer that ended it, where nothing can be sent for the time being."""

    @property
    def points(self) -> int:
        """Points that were refused."""
        return sum(group.points for group in self.refused)

    @property
    def names(self) -> list[str]:
        """Metrics of the refused points."""
        return [name for group in self.refused for name in group.names]


def isolate(
    points: Iterable[PointBuilder], send: Callable[[PointBuilder], Answer], *, definite: bool, most: int
) -> Isolation:
    """Send halves of the refused points, down to single points.

    Args:
        points: The record's points, which were refused together.
        send: Sends a group of them.
        definite: Whether the refusal is about the data for sure. A receiver with faults of its own is asked once more
            before a point is given up.
        most: Refused groups after which the other refused points are given up.
    """
    result, groups, refusals = Isolation(), deque(points), 0
    while groups:
        group = groups.popleft()
        halves = group.halves() if group.points > 1 and refusals < most else ()
        for part in halves or (() if definite else (group,)):
            answer = send(part)
            if answer.taken:
                result.taken.update(part.names)
            elif answer.verdict not in (Verdict.DATA, Verdict.TOO_LARGE):
                result.failure = answer
                return result
            elif halves:
                refusals += 1
                groups.append(part)
            else:
                result.refused.append(part)
        if not halves and definite:
            result.refused.append(group)
    return result
