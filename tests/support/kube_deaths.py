"""What pods recorded beside what a receiver took of it, and the table of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from otel_train.sidecar.points import LIVE_SUFFIX
from otel_train.testing import ReceivedPoint
from tests.support.kube_job import KubeJob
from tests.support.otlp_endpoint import Endpoint

IN_FLIGHT = 2
"""Reductions that may be under way when a rank is killed: nobody has recorded their values yet."""
LOSS = "train/cluster/loss"
"""The cluster's metric whose value in step n is n."""
TABLE: list[str] = []
"""A line for each death, as docs/reliability.md has it."""


@dataclass(frozen=True)
class Attempt:
    """One pod's training."""

    recorded: list[int]
    """Steps that all ranks have made."""
    points: list[ReceivedPoint]
    """What came of it."""

    @property
    def arrived(self) -> Counter[int]:
        """Steps of the cluster's values that came, with how often."""
        return Counter(int(point.value) for point in self.points if point.name == LOSS)

    @property
    def lost(self) -> list[int]:
        """Steps that did not come."""
        return sorted(set(self.recorded) - set(self.arrived))

    @property
    def twice(self) -> list[int]:
        """Steps that came more than once with different time stamps: no store could take one for the other."""
        times = Counter(int(value) for value, _ in {(p.value, p.time_ns) for p in self.points if p.name == LOSS})
        return [step for step, number in times.items() if number > 1]

    def values(self, name: str) -> list[float]:
        """Return the values of a metric, of all ranks."""
        return [point.value for point in self.points if point.name == name]


def arrivals(endpoint: Endpoint) -> dict[int, list[ReceivedPoint]]:
    """Return what came of each attempt of the one run that sent something."""
    runs, attempts = set(), dict[int, list[ReceivedPoint]]()
    for point in endpoint.points:
        run, attempt, _ = point.instance.removesuffix(LIVE_SUFFIX).rsplit("/", 2)
        runs.add(run)
        attempts.setdefault(int(attempt), []).append(point)
    assert len(runs) <= 1, runs
    return attempts


def attempts_of(job: KubeJob, endpoint: Endpoint) -> list[Attempt]:
    """Return a job's pods, in the order in which they began, each with what came of it.

    Raises:
        AssertionError: More attempts came than pods trained, or of several runs.
    """
    began = [points for _, points in sorted(arrivals(endpoint).items())]
    pods = len(job.folders())
    assert len(began) <= pods
    began += [[]] * (pods - len(began))
    return [Attempt(job.steps(number), points) for number, points in enumerate(began)]


def count(death: str, job: KubeJob, endpoint: Endpoint) -> list[Attempt]:
    """Return a job's attempts, after adding the first one's line to the table; none has a step twice."""
    attempts = attempts_of(job, endpoint)
    for number, attempt in enumerate(attempts):
        name = death if not number else f"{death}: attempt {number + 1}"
        figures = (len(attempt.recorded), len(attempt.arrived), len(attempt.twice), len(attempt.lost))
        TABLE.append(f"| {name} | {' | '.join(map(str, figures))} |")
    assert [attempt.twice for attempt in attempts] == [[] for _ in attempts]
    return attempts
