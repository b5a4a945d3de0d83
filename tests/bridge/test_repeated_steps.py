"""A collection that an SDK sends once more is not another row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from otel_train.bridge import Inbox
from otel_train.bridge.decode import decode
from otel_train.catalogue import rows
from tests.support.step_requests import step_request

DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def collection(
    step: int, time: int, values: Mapping[str, float], total: float = 5, *, delta: bool = False, **more: Any
) -> Any:
    """Return a request of an SDK: a step's gauges and a total, at a time of its own."""
    request = step_request(time, values, {rows.PICKS.name: total}, **more)
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    metrics[0].gauge.data_points[0].as_int = step
    for metric in metrics:
        if delta and metric.WhichOneof("data") == "sum":
            metric.sum.aggregation_temporality = DELTA
    return request


LOSS = {"loss": 0.5, "grad": math.nan}


@pytest.mark.parametrize(
    ("second", "count"),
    [
        (collection(1, 2, LOSS), 1),
        (collection(2, 2, LOSS), 2),
        (collection(1, 2, {**LOSS, "loss": 0.25}), 2),
        (collection(1, 2, {**LOSS, "lr": 0.1}), 2),
        (collection(1, 2, LOSS, 6), 2),
        (collection(1, 2, LOSS, attempt=2), 2),
        (collection(1, 2, LOSS, run_id="other"), 2),
    ],
    ids=["again", "step", "gauge", "series", "total", "attempt", "run"],
)
def test_repetition_is_no_row(inbox: Inbox, second: Any, count: int) -> None:
    """The last step's values under a new time stamp are duplicates; anything new in them makes a row."""
    inbox.add(decode(collection(1, 1, LOSS)).points, 1)
    added = inbox.add(decode(second).points, 2)
    assert sum(len(inbox.reader.rows(run)) for run in inbox.reader.run_ids()) == count
    assert bool(added.duplicates) == (count == 1)


@pytest.mark.parametrize("options", [{"delta": True}, {"number": 7}], ids=lambda options: next(iter(options)))
def test_new_amounts_are_rows(inbox: Inbox, options: dict[str, Any]) -> None:
    """Amounts since the collection before are new each time, and a sidecar numbers what it sends."""
    for time in (1, 2):
        more = {"number": time} if "number" in options else options
        inbox.add(decode(collection(1, time, LOSS, **more)).points, time)
    assert len(inbox.reader.rows("run")) == 2


def test_absent_amounts_are_no_row(inbox: Inbox) -> None:
    """An SDK of delta sums and histograms leaves out those without a new amount: the gauges alone are no other row."""
    inbox.add(decode(collection(1, 1, LOSS, delta=True, histogram="time", counted=False)).points, 1)
    again = collection(1, 2, LOSS, counted=False)
    metrics = again.resource_metrics[0].scope_metrics[0].metrics
    metrics.remove(next(metric for metric in metrics if metric.WhichOneof("data") == "sum"))
    added = inbox.add(decode(again).points, 2)
    assert (len(inbox.reader.rows("run")), bool(added.duplicates)) == (1, True)


def test_retry_after_failure_is_taken(inbox: Inbox) -> None:
    """A step whose transaction failed is not the last one: it is taken when it comes again, at whatever time."""

    def fail() -> None:
        with inbox.transaction():
            inbox.add(decode(collection(1, 1, LOSS)).points, 1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    inbox.add(decode(collection(1, 2, LOSS)).points, 2)
    assert len(inbox.reader.rows("run")) == 1
