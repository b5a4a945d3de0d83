"""Read OTLP's JSON, which is protobuf's JSON but for a few rules, within bounds."""

from __future__ import annotations

import json
import re
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.printable import printable

MAX_OBJECTS = 500_000
"""Objects and lists of a request. A point has some three in 150 bytes; empty ones, which take three bytes each, would
keep the parser for half a minute."""
_UNUSED = frozenset({"exemplars", "bucketCounts", "explicitBounds", "quantileValues"})
_FIELD = re.compile(r"Failed to parse (\w+) field: ")
_PLACE = re.compile(r" at ExportMetricsServiceRequest\.([\w.\[\]]+)$")
_INDEX = re.compile(r"\[\d+\]")
_LONG = 1000
_MOST_CHARACTERS = 120
"""Characters of a field's path, and of the reason, that a sender is told."""


class InvalidFieldError(ValueError):
    """A field has a value that is none of its type.

    Args:
        message: The parser's.
    """

    def __init__(self, message: str) -> None:
        message = message.rstrip(".")
        place = _PLACE.search(message)
        reason = _FIELD.sub("", message[: place.start()] if place else message)
        path = place[1] if place else ".".join(_FIELD.findall(message))
        if len(path) > _MOST_CHARACTERS:
            path = "…" + path[-_MOST_CHARACTERS:]
        self.field = _INDEX.sub("", path)
        """Field, without the indices of the lists on the way."""
        super().__init__(f"{path}: {reason[:_MOST_CHARACTERS]}")


def read_request(text: bytes) -> bytes:
    r"""Return the request that a JSON text holds, as protobuf.

    Whole numbers may be numbers or text and enumerations numbers, unknown fields are skipped, as
    [OTLP's mapping](https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding) has it. What a row is not made of
    is left out: exemplars, whose ids are hexadecimal there, and the buckets of histograms.

    Args:
        text: UTF-8.

    Raises:
        InvalidFieldError: A field is not of its type; the message says which and why in a line.
        ValueError: It is not such a text; the message says why.

    Example:
        >>> read_request(b'{"resourceMetrics": [{"schemaUrl": "x", "novel": 1}]}')
        b'\n\x03\x1a\x01x'
    """
    if text.count(b"{") + text.count(b"[") > MAX_OBJECTS:
        raise ValueError(f"a request has more than {MAX_OBJECTS} objects and lists; send less")
    try:
        content = json.loads(text.decode(), object_hook=_without_unused)
        request = ParseDict(content, ExportMetricsServiceRequest(), ignore_unknown_fields=True)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    # The parser expects its caller to know types, and says SystemError of half a surrogate pair in a name.
    except (ValueError, ParseError, TypeError, AttributeError, SystemError) as error:
        long = str(error)  # the value may be most of it, and stands between what is parsed and where
        message = printable(" ".join((long if len(long) <= _LONG else long[:_LONG] + long[-_LONG:]).split()))
        raise (InvalidFieldError(message) if _FIELD.match(message) else ValueError(message[:200])) from error
    if not isinstance(content, dict):
        raise ValueError("it is not an object")  # noqa: TRY004  # a text is never of the wrong type
    data: bytes = request.SerializeToString()
    return data


def _without_unused(content: dict[str, Any]) -> dict[str, Any]:
    for name in _UNUSED & content.keys():
        del content[name]
    return content
