"""Statuses of a receiver and their meaning."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Detail
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otel_train.endpoint import Endpoint
from otel_train.otlp.answers import Verdict, of_grpc, of_http

Code = grpc.StatusCode
PLAIN, GZIP = Endpoint(), Endpoint(compression="gzip")


class Refused(grpc.RpcError):
    """Error that a call raises."""

    def __init__(self, code: grpc.StatusCode, details: str = "", metadata: tuple[str, bytes] = ("x", b"")) -> None:
        self._code, self._details, self._metadata = code, details, metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return (self._metadata,)


@pytest.mark.parametrize(
    ("code", "text", "verdict"),
    [
        (Code.UNAVAILABLE, "", Verdict.WAIT),
        (Code.DEADLINE_EXCEEDED, "", Verdict.WAIT),
        (Code.UNAUTHENTICATED, "", Verdict.WAIT),
        (Code.PERMISSION_DENIED, "", Verdict.WAIT),
        (Code.UNIMPLEMENTED, "unknown service", Verdict.WAIT),
        (Code.RESOURCE_EXHAUSTED, "quota", Verdict.WAIT),
        (Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max (9 vs. 4)", Verdict.TOO_LARGE),
        (Code.INVALID_ARGUMENT, "", Verdict.DATA),
        (Code.ALREADY_EXISTS, "", Verdict.DATA),
        (Code.INTERNAL, "", Verdict.DATA),
        (Code.UNKNOWN, "", Verdict.DATA),
    ],
)
def test_grpc_status_gives_verdict(code: grpc.StatusCode, text: str, verdict: Verdict) -> None:
    """Only a status that may be about the data leads to a search; credentials, paths and outages are waited for."""
    answer = of_grpc(Refused(code, text), PLAIN)
    assert (answer.verdict, answer.cause, answer.text) == (verdict, code.name, text)


@pytest.mark.parametrize(
    ("status", "verdict", "definite"),
    [(code, Verdict.WAIT, False) for code in (301, 401, 403, 404, 405, 408, 429, 501, 502, 503, 504)]
    + [(400, Verdict.DATA, True), (409, Verdict.DATA, True), (422, Verdict.DATA, True), (500, Verdict.DATA, False)]
    + [(200, Verdict.TAKEN, False), (413, Verdict.TOO_LARGE, False)],
)
def test_http_status_gives_verdict(status: int, verdict: Verdict, definite: bool) -> None:
    """A 4xx status means that the data are wrong; a 5xx may be about anything."""
    answer = of_http(status, "text", 0.0, PLAIN)
    assert (answer.verdict, answer.definite) == (verdict, definite)


def test_text_of_receiver_is_harmless() -> None:
    """Control characters do not reach logs and terminals."""
    assert of_http(400, "a\x1b[2J\nb\u202ec", 0.0, PLAIN).text == "a?[2J b?c"


def test_missing_compression_is_recognised() -> None:
    """A compressed request that is refused for its encoding is told from other refusals."""
    assert of_grpc(Refused(Code.UNIMPLEMENTED), GZIP).verdict is Verdict.COMPRESSION
    assert of_http(415, "", 0.0, GZIP).verdict is Verdict.COMPRESSION


@pytest.mark.parametrize("standard", [True, False])
def test_delay_is_read_of_status(standard: bool) -> None:
    """The delay is read where the standard has it and where the SDK looks; other bytes give no delay."""
    info, detail = RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)), Detail()
    detail.Pack(info)
    status = Status(code=14, details=[detail]).SerializeToString()
    name, value = "google.rpc.retryinfo-bin", info.SerializeToString()
    metadata = ("grpc-status-details-bin", status) if standard else (name, value)
    assert of_grpc(Refused(Code.UNAVAILABLE, "", metadata), PLAIN).delay == 2.5
    assert of_grpc(Refused(Code.UNAVAILABLE, "", (metadata[0], b"\xff")), PLAIN).delay == 0
