"""Points made from templates: against the SDK's own encoder, and of whole numbers that do not fit."""

from __future__ import annotations

import math

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics, Sum
from opentelemetry.sdk.metrics.export import MetricsData

from otel_train.catalogue import rows
from otel_train.ring import Identity
from otel_train.sidecar.point_templates import number
from otel_train.sidecar.points import Origin, PointBuilder, resource_of
from tests.support.rank_ring import FIRST_TIME, SCHEMA
from tests.support.sdk_points import to_sdk


def test_message_equals_the_sdk() -> None:
    """A message of all instruments, of two steps, with attributes and without, is the SDK's byte for byte."""
    identity, layout = Identity(run_id="run", attempt=7), SCHEMA.layout()
    builder = PointBuilder(Origin(identity, layout))
    for step in (1, 2):
        values = [float(index + step) for index in range(layout.sums + 2 * layout.peaks)]
        builder.add_cluster(step, FIRST_TIME + step, values, values[: layout.sums])
        builder.add_rank(step, FIRST_TIME + step, values, values[: layout.sums])
    builder.add_pipeline(rows.EXPORT_LAG, FIRST_TIME, 0.5)
    message = ResourceMetrics()
    builder.write(message)
    (expected,) = encode_metrics(MetricsData([to_sdk(message)])).resource_metrics
    assert message.SerializeToString() == expected.SerializeToString()
    assert {attribute.key for attribute in message.resource.attributes} == set(resource_of(identity).attributes)
    starts = {
        point.start_time_unix_nano for metric in message.scope_metrics[0].metrics for point in metric.sum.data_points
    }
    assert starts == {7_000_000}


@pytest.mark.parametrize(
    ("value", "expected"), [(math.inf, 2**63 - 1), (-1e300, -(2**63)), (math.nan, 0), (2**63, 2**63 - 1), (7.0, 7)]
)
def test_oversized_integer_is_clamped(value: float, expected: int) -> None:
    """A number that the protocol's integer can't hold is sent as the nearest one: it keeps no request back."""
    message = Sum.FromString(number(integer=True)(1, value))
    assert [point.as_int for point in message.data_points] == [expected]
