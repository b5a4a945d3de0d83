"""A receiver in this process that keeps what it is sent, refuses what a test says, and forgets to acknowledge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.bridge.collection_times import data_points
from otel_train.catalogue import rows
from otel_train.otlp.answers import TAKEN, Answer, Verdict


class Sent(NamedTuple):
    """One point, as it came."""

    instance: str
    name: str
    attributes: bytes
    time_ns: int
    point: bytes

    @property
    def series(self) -> tuple[str, str, bytes]:
        """Its series."""
        return self.instance, self.name, self.attributes


def points_of(body: bytes) -> list[Sent]:
    """Return a request's points."""
    sent = []
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        identity = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        for metric in resource.scope_metrics[0].metrics:
            for point in data_points(metric):
                attributes = b"".join(pair.SerializeToString() for pair in point.attributes)
                time_ns = point.time_unix_nano
                sent.append(
                    Sent(identity["service.instance.id"], metric.name, attributes, time_ns, point.SerializeToString())
                )
    return sent


Policy = Callable[["Store", list[Sent], bytes], Answer | None]


class Store:
    """A receiver that takes what its policy does not refuse."""

    def __init__(self, policy: Policy = lambda *_: None) -> None:
        self.policy = policy
        self.requests: list[list[Sent]] = []
        self.kept: dict[tuple[str, str, bytes], dict[int, bytes]] = defaultdict(dict)
        self.lose_next = False
        """Whether the next request is kept and not acknowledged."""

    def send(self, body: bytes) -> Answer:
        """Take a request or refuse it."""
        points = points_of(body)
        self.requests.append(points)
        refusal = self.policy(self, points, body)
        if refusal is not None:
            return refusal
        self.keep(points)
        if self.lose_next:
            self.lose_next = False
            return Answer(verdict=Verdict.WAIT, cause="DEADLINE_EXCEEDED", unanswered=True)
        return TAKEN

    def keep(self, points: list[Sent]) -> None:
        """Keep points."""
        for point in points:
            self.kept[point.series][point.time_ns] = point.point

    def steps(self, instance: str = "run/7/0") -> list[int]:
        """Return the time stamps at which `train.step` was kept."""
        return sorted(self.kept.get((instance, rows.STEP.name, b""), {}))


def refusing(bad: Callable[[Sent], bool], answer: Answer) -> Policy:
    """Return a policy that refuses any request with a bad point, for good."""
    return lambda _, points, __: answer if any(map(bad, points)) else None


def without_window(keeps: str) -> Store:
    """Return a store that takes no repetitions and nothing out of order, as some do without a window for it.

    Args:
        keeps: What it keeps of a request that it refuses: "nothing" or the "good part".
    """
    refusal = Answer(verdict=Verdict.DATA, cause="HTTP 409", text="out of order sample", definite=True)

    def policy(store: Store, points: list[Sent], _: bytes) -> Answer | None:
        newest = {series: max(times) for series, times in store.kept.items() if times}
        good = []
        for point in points:
            if point.time_ns > newest.get(point.series, 0):
                newest[point.series] = point.time_ns
                good.append(point)
        if len(good) == len(points):
            return None
        if keeps == "good part":
            store.keep(good)
        return refusal

    return Store(policy)
