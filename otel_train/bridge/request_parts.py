"""Parse a request of OTLP so that text that is not UTF-8 costs the resource that has it, not the whole request.

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
from otel_train.bridge.decode import MAX_ITEMS

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
        DecodeError: It is no such request, or all of its resources have text that is not UTF-8.
    """
    try:
        return Parsed(ExportMetricsServiceRequest.FromString(data))
    except DecodeError:
        whole, part_type = _lenient()
        request, lost = ExportMetricsServiceRequest(), 0
        for part in whole.FromString(data).resource_metrics:
            try:
                request.resource_metrics.add().MergeFromString(part)
            except DecodeError:
                del request.resource_metrics[-1]
                scopes = part_type.FromString(part).scope_metrics
                metrics = (metric for scope in scopes for metric in scope.metrics)
                lost += sum(len(data_points(metric)) for metric in islice(metrics, MAX_ITEMS))
        if not request.resource_metrics:
            raise
        return Parsed(request, lost, "a resource, or one of its metrics, has text that is not UTF-8")


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
