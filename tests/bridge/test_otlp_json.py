"""OTLP's JSON is read as its mapping has it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.bridge import otlp_json
from otel_train.bridge.decode import decode
from otel_train.bridge.otlp_json import InvalidFieldError, read_request
from otel_train.catalogue import rows

NUMBER = {
    "as text": ("1790000000000000001", "9007199254740993"),
    "as number": (1790000000000000001, 9007199254740993),
}


@pytest.mark.parametrize("form", NUMBER)
def test_mapping_is_followed(form: str) -> None:
    """Whole numbers come as text or number and exact, enumerations as numbers; ids and novel fields do not matter."""
    time, count = NUMBER[form]
    point = {"timeUnixNano": time, "asInt": count, "exemplars": [{"traceId": "ABC", "spanId": "0"}], "novel": [{}]}
    metrics = [
        {"name": rows.STEP.name, "gauge": {"dataPoints": [{"timeUnixNano": time, "asDouble": 3}]}},
        {
            "name": "ledger.cluster.picks",
            "sum": {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": [point]},
        },
        {"name": "cluster/loss", "gauge": {"dataPoints": [{"timeUnixNano": time, "asDouble": "NaN", "flags": None}]}},
        {
            "name": "cluster/size",
            "histogram": {"aggregationTemporality": 2, "dataPoints": [{"timeUnixNano": time, "bucketCounts": ["1"]}]},
        },
    ]
    attributes = [
        {"key": "train.run.id", "value": {"stringValue": "läuft"}},
        {"key": "train.attempt", "value": {"intValue": "7"}},
    ]
    content = {"resourceMetrics": [{"resource": {"attributes": attributes}, "scopeMetrics": [{"metrics": metrics}]}]}
    decoded = decode(ExportMetricsServiceRequest.FromString(read_request(json.dumps(content).encode())))
    assert decoded.rejected == 0
    assert {point.step_id for point in decoded.points} == {("läuft", 7, 1790000000000000001)}
    assert [(point.kind.name, repr(point.value)) for point in decoded.points] == [
        ("VALUE", "3.0"),
        ("CUMULATIVE", "9007199254740993"),
        ("VALUE", "nan"),
        ("PRESENT", "0"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"resourceMetrics": {}}',
        b'{"resourceMetrics": [null]}',
        b'{"resourceMetrics": [{"schemaUrl": 5}]}',
        b'{"resourceMetrics": [{"schemaUrl": "\\ud800"}]}',
        b'{"\\ud800": 1}',
        b'{"resourceMetrics": [{"schemaUrl": "\xff"}]}',
        '{"resourceMetrics": []}'.encode("utf-16"),
        b'{"n": ' + b"1" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"resourceMetrics": [{"resource": {"attributes": [{"key": "a", "value": '
        + b'{"arrayValue": {"values": [' * 200
        + b"]}}" * 200
        + b"}]}}]}",
    ],
    ids=lambda text: text[:30].decode("latin-1"),
)
def test_invalid_text_is_value_error(text: bytes) -> None:
    """Whatever is not a request raises a ValueError of one short line."""
    with pytest.raises(ValueError, match=r"^.{1,250}$"):
        read_request(text)


@pytest.mark.parametrize(
    ("point", "field", "why"),
    [
        ({"asDouble": "zz"}, "asDouble", "zz"),
        ({"asInt": "1e3x"}, "asInt", "1e3x"),
        ({"asInt": 1.5}, "asInt", "1.5"),
        ({"timeUnixNano": -1}, "timeUnixNano", "out of range: -1"),
        ({"attributes": [{"key": 5}]}, "key", "int"),
        ({"asDouble": "\x1b" + "z" * 10**6}, "asDouble", r"float: \?zz"),
    ],
)
def test_invalid_field_is_named(point: dict[str, Any], field: str, why: str) -> None:
    """The error says where the field is, and what it has, in a line for a log."""
    metrics = [{"name": "cluster/loss", "gauge": {"dataPoints": [{"asInt": 1}, point]}}]
    content = {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}
    with pytest.raises(
        InvalidFieldError, match=rf"^resourceMetrics\S*dataPoints\S*\b{field}: .*{why}.{{0,99}}$"
    ) as error:
        read_request(json.dumps(content).encode())
    assert error.value.field.endswith(f".{field}")
    assert str(error.value).isprintable()
    assert "[" not in error.value.field


def test_many_objects_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of very many empty objects is refused before it is parsed."""
    monkeypatch.setattr(otlp_json, "MAX_OBJECTS", 10)
    with pytest.raises(ValueError, match="more than 10 objects and lists"):
        read_request(b'{"resourceMetrics": [' + b"{}," * 10 + b"{}]}")
