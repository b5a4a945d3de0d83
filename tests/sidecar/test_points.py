"""Points made from templates, against the SDK's own encoder."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics
from opentelemetry.sdk.metrics.export import MetricsData

from otel_train.catalogue import rows
from otel_train.ring import Identity
from otel_train.sidecar.points import Origin, PointBuilder, resource_of
from tests.sidecar.conftest import FIRST_TIME, SCHEMA
from tests.support.sdk_points import to_sdk


def test_message_equals_the_sdk() -> None:
    """Of all instruments, with attributes and without, of two steps, and byte for byte."""
    identity, layout = Identity(run_id="run", attempt=7), SCHEMA.layout()
    builder = PointBuilder(Origin(identity, layout))
    for step in (1, 2):
        values = [float(place + step) for place in range(layout.sums + 2 * layout.peaks)]
        builder.add_cluster(step, FIRST_TIME + step, values, values[: layout.sums])
        builder.add_rank(step, FIRST_TIME + step, values, values[: layout.sums])
    builder.add_pipeline(rows.EXPORT_LAG, FIRST_TIME, 0.5)
    message = ResourceMetrics()
    builder.write(message)
    (wanted,) = encode_metrics(MetricsData([to_sdk(message)])).resource_metrics
    assert message.SerializeToString() == wanted.SerializeToString()
    assert {each.key for each in message.resource.attributes} == set(resource_of(identity).attributes)
    starts = {
        point.start_time_unix_nano for metric in message.scope_metrics[0].metrics for point in metric.sum.data_points
    }
    assert starts == {7_000_000}
