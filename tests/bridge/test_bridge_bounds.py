"""What the bridge makes of requests that are too large, too many or too slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from otel_train.bridge.decode import MAX_ATTRIBUTES, MAX_ITEMS, MAX_TEXT, decode
from otel_train.catalogue import cluster_name
from tests.bridge.slow_sender import SlowSenders


def many(list_: Any, count: int) -> None:
    """Append so many empty parts to a list of a request."""
    part = type(list_.add())()
    list_.extend([part] * (count - len(list_)))


@pytest.mark.parametrize(
    ("grow", "rejected"),
    [
        (lambda resource, _: many(resource.resource.attributes, 1_000_000), 3),
        (lambda _, metrics: many(metrics[1].gauge.data_points[0].attributes, 1_000_000), 1),
        (lambda resource, _: setattr(resource.resource.attributes[2].value, "string_value", "r" * 2**20), 3),
        (lambda _, metrics: setattr(metrics[1], "name", cluster_name("n" * 2**20)), 1),
    ],
    ids=["resource", "point", "run id", "name"],
)
def test_what_is_too_large_is_refused_alone(requests: Any, grow: Callable[[Any, Any], None], rejected: int) -> None:
    """A million attributes and texts of a megabyte cost their resource or point, and an answer of a line."""
    request = requests.step(1, {"loss": 0.5})
    grow(request.resource_metrics[0], request.resource_metrics[0].scope_metrics[0].metrics)
    request.MergeFrom(requests.step(2, {"loss": 0.5}))
    decoded = decode(request)
    assert (decoded.rejected, len(decoded.points)) == (rejected, 6 - rejected)
    assert len(decoded.reason) < 200


def test_as_many_attributes_and_characters_as_allowed_are_taken(requests: Any) -> None:
    """The bounds themselves belong to what is accepted."""
    request = requests.step(1, {cluster_name("n" * MAX_TEXT)[-MAX_TEXT + 8 :]: 0.5}, run_id="r" * MAX_TEXT)
    many(request.resource_metrics[0].resource.attributes, MAX_ATTRIBUTES)
    assert (decode(request).rejected, len(decode(request).points)) == (0, 3)


@pytest.mark.parametrize(
    "list_of",
    [
        lambda request: request.resource_metrics,
        lambda request: request.resource_metrics[0].scope_metrics,
        lambda request: request.resource_metrics[0].scope_metrics[0].metrics,
        lambda request: request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points,
    ],
    ids=["resources", "scopes", "metrics", "points"],
)
def test_a_request_of_very_many_parts_is_refused_unread(requests: Any, list_of: Callable[[Any], Any]) -> None:
    """Empty parts take two bytes each, and would take a worker's time by the million."""
    request = requests.step(1, {"loss": 0.5})
    many(list_of(request), MAX_ITEMS)
    decoded = decode(request)
    assert decoded.points == ()
    assert decoded.rejected > MAX_ITEMS


def test_senders_that_stall_keep_no_other_waiting(start: Any, requests: Any) -> None:
    """Sixteen that send a byte a second, and one that is healthy: its requests are answered and become rows."""
    bridge = start()
    with SlowSenders(bridge.bridge.address, 16):
        bridge.send(*(requests.step(step, {"loss": 0.5}) for step in range(20)))
        bridge.wait(20)
