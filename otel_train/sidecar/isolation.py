"""Isolate the points of a record that a receiver refuses, by sending ever smaller groups of them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from otel_train.otlp.answers import Answer, Verdict
from otel_train.sidecar.points import PointBuilder
from otel_train.sidecar.request_bodies import rejected_of


@dataclass(slots=True, kw_only=True)
class Isolation:
    """Result of sending a record's points in groups."""

    refused: list[PointBuilder] = field(default_factory=list)
    """Groups that were refused."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Points that were refused, or rejected out of groups that were taken, by reason."""
    taken: set[str] = field(default_factory=set)
    """Metrics of which a point was taken."""
    failure: Answer | None = None
    """The answer that ended it, where nothing can be sent for the time being."""

    def give_up(self, group: PointBuilder, answer: Answer) -> None:
        """Note that a group is refused."""
        self.refused.append(group)
        self.reasons[answer.reason] += group.points

    @property
    def names(self) -> list[str]:
        """Metrics of the refused points."""
        return [name for group in self.refused for name in group.names]


def isolate(
    points: Iterable[PointBuilder], send: Callable[[PointBuilder], list[Answer]], refusal: Answer, *, most: int
) -> Isolation:
    """Send halves of the refused points, down to single points.

    Args:
        points: The record's points, which were refused together.
        send: Sends a group of them.
        refusal: The answer that refused them. Where it may be about a fault of the receiver's own, that is asked once
            more before a point is given up.
        most: Refused groups after which the other refused points are given up.
    """
    result, groups, refusals = Isolation(), deque((group, refusal) for group in points), 0
    while groups:
        group, last = groups.popleft()
        halves = group.halves() if group.points > 1 and refusals < most else ()
        for part in halves or (() if refusal.definite else (group,)):
            answers = send(part)
            answer = answers[-1]
            if answer.taken:
                result.taken.update(part.names)
                result.reasons.update(rejected_of(answers, [part.points])[0])
            elif answer.verdict not in (Verdict.DATA, Verdict.TOO_LARGE):
                result.failure = answer
                return result
            elif halves:
                refusals += 1
                groups.append((part, answer))
            else:
                result.give_up(part, answer)
        if not halves and refusal.definite:
            result.give_up(group, last)
    return result
