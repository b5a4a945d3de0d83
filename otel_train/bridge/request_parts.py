"""Parse a request of OTLP so that what can't be read, as text that is not UTF-8, costs its resource, not the request.

A collector puts the resources of several senders into one request, and does not look at their text.
"""

from __future__ import annotations

from functools import cache
from itertools import islice
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2

from otel_train.bridge.collection_times import data_points
from otel_train.bridge.decode import MAX_ITEMS, TOO_MANY

_FILES = (common_pb2, resource_pb2, metrics_pb2, metrics_service_pb2)
"""The modules of OTLP's messages, each after those that it imports."""


class Parsed(NamedTuple):
    """A request without the resources that can't be read."""

    request: ExportMetricsServiceRequest
    lost: int = 0
    """Points of the others."""
    reason: str = ""


def parse_request(data: bytes) -> Parsed:
    """Parse a request.

    Args:
        data: The request as it came.

    Raises:
        DecodeError: It is no such request, or none of its resources can be read.
    """
    try:
        return Parsed(ExportMetricsServiceRequest.FromString(data))
    except DecodeError:
        whole, part_type = _lenient()
        request, lost = ExportMetricsServiceRequest(), 0
        parts = whole.FromString(data).resource_metrics
        if len(parts) >= MAX_ITEMS:  # as where all can be read, and before each is read by itself
            return Parsed(request, len(parts), TOO_MANY)
        for part in parts:
            try:
                request.resource_metrics.add().MergeFromString(part)
            except DecodeError:
                del request.resource_metrics[-1]
                lost += _points(part_type, part)
        if not request.resource_metrics:
            raise
        return Parsed(request, lost, "a resource has text that is not UTF-8, or is nested too deep")


def _points(part_type: Any, part: bytes) -> int:
    """Count the points of a resource that can't be read; one where it is nested too deep to count them."""
    try:
        scopes = part_type.FromString(part).scope_metrics
    except DecodeError:
        return 1
    metrics = (metric for scope in scopes for metric in scope.metrics)
    return sum(len(data_points(metric)) for metric in islice(metrics, MAX_ITEMS))


@cache
def _lenient() -> tuple[Any, Any]:
    """Return types of a request, whose resources are bytes, and of a resource's metrics, whose text is."""
    pool = DescriptorPool()
    for module in _FILES:
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            _loosen(message)
        pool.Add(file)
    names = ExportMetricsServiceRequest.DESCRIPTOR.full_name, metrics_pb2.ResourceMetrics.DESCRIPTOR.full_name
    whole, part = (GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)
    return whole, part


def _loosen(message: DescriptorProto) -> None:
    """Make text bytes, and the resources of a request too."""
    for inner in message.nested_type:
        _loosen(inner)
    for field in message.field:
        is_part = message.name == ExportMetricsServiceRequest.DESCRIPTOR.name
        if is_part or field.type == FieldDescriptorProto.TYPE_STRING:
            field.type = FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")
