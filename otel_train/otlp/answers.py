"""Classify a receiver's answer to a request: taken, to be sent later, to be sent smaller, or about the data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc
from google.protobuf import json_format
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from otel_train.endpoint import Endpoint
from otel_train.printable import printable
from otel_train.refusals import REMEDIES, Refusal, refusal_of


class Verdict(Enum):
    """Class of an answer, which decides what comes next."""

    TAKEN = "taken"
    WAIT = "wait"
    """The fault ends by itself or by configuration; the data are kept."""
    TOO_LARGE = "too large"
    DATA = "data"
    """The data may be at fault: the sender searches for which."""
    COMPRESSION = "compression"
    """The receiver may not support this compression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Result of one request."""

    verdict: Verdict
    cause: str = ""
    """Status, or the kind of the failure."""
    text: str = ""
    """Message of the receiver or the library."""
    advice: str = ""
    delay: float = 0.0
    """Seconds that the receiver asks to wait."""
    definite: bool = False
    """Whether the status says that the data are wrong, and not the receiver."""
    unanswered: bool = False
    """Whether the receiver may have taken the request although it did not say so."""
    rejected: int = 0
    """Points of a request that was taken otherwise. With a text and none of them, the text is a warning."""
    seconds: float = 0.0
    """Seconds until it came."""

    @property
    def taken(self) -> bool:
        """Whether nothing of the request is to be sent again."""
        return self.verdict is Verdict.TAKEN

    @property
    def reason(self) -> Refusal:
        """Why points of it are refused, where some are."""
        if self.verdict is Verdict.TOO_LARGE:
            return Refusal.TOO_LARGE
        return refusal_of(self.text, Refusal.REJECTED if self.taken else Refusal.INVALID)

    @property
    def what_to_do(self) -> str:
        """Advice, of a refusal of the data that of its reason."""
        return self.advice or (REMEDIES.get(self.reason, "") if self.verdict is Verdict.DATA else "")

    @property
    def topic(self) -> str:
        """Text without its numbers: times and counts are others each time."""
        return re.sub(r"\d+", "#", self.text)

    @property
    def repetition(self) -> bool:
        """Whether the text says that the receiver has the data, or newer ones."""
        return bool(re.search(r"duplicate|out[ -]of[ -]order|already", self.text, re.IGNORECASE))


TAKEN = Answer(verdict=Verdict.TAKEN)
PARTIAL_SUCCESS, UNREADABLE = "partial success", "unreadable answer"
"""Causes of answers to requests that were taken."""
WEB_PAGE = "web page"
"""Cause of an answer that says success, and is no receiver's."""
_WEB_PAGE = re.compile(r"^\s*(text/html|application/xhtml)", re.IGNORECASE)
_BEFORE_TEXT = b"\xef\xbb\xbf \t\r\n"
"""Bytes that may be before a page's first character: a mark of its encoding, and white space."""
_NO_RECEIVER = (
    "A proxy, a login or a web server answers in place of a receiver: name the receiver's own address in "
    "OTEL_EXPORTER_OTLP_ENDPOINT, or set the credentials that the proxy asks for in OTEL_EXPORTER_OTLP_HEADERS"
)
_Code = grpc.StatusCode
_DEFINITE = {_Code.INVALID_ARGUMENT, _Code.FAILED_PRECONDITION, _Code.ALREADY_EXISTS}
_UNCLEAR = {_Code.INTERNAL, _Code.UNKNOWN, _Code.DATA_LOSS, _Code.OUT_OF_RANGE, _Code.ABORTED}
_TOO_LARGE = re.compile(r"larger than max|too large|message size|status: 413", re.IGNORECASE)
_CREDENTIALS = "Set the credentials that the receiver asks for in OTEL_EXPORTER_OTLP_HEADERS"
_HTTP_PROTOCOL = (
    "It looks like an HTTP endpoint: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or name the receiver's gRPC port, "
    "mostly 4317"
)
_GRPC_PROTOCOL = (
    "It looks like a gRPC endpoint: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or name the receiver's HTTP port, mostly 4318"
)
_NO_HTTP = f"{_GRPC_PROTOCOL}; or it speaks TLS: begin the endpoint with https://"
_ABOUT_CONNECTIONS: tuple[tuple[str, str], ...] = (
    (r"Failed parsing HTTP/2|http1\.x server", _HTTP_PROTOCOL),
    (r"BadStatusLine\(.\\x00", _GRPC_PROTOCOL),
    (r"closed connection without response", _NO_HTTP),
    (
        r"WRONG_VERSION_NUMBER|wrong version number|record layer failure|UNKNOWN_PROTOCOL",
        "It speaks plain text: begin the endpoint with http://, or set OTEL_EXPORTER_OTLP_INSECURE=true",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|unable to get local issuer|self.signed",
        "Name the authority of its certificate in OTEL_EXPORTER_OTLP_CERTIFICATE",
    ),
    (
        r"Connection refused|Errno 111",
        "Nothing listens there: start the receiver, or name its address in OTEL_EXPORTER_OTLP_ENDPOINT",
    ),
    (r"[Nn]ame or service|resolv|[Dd]omain name|Name resolution", "Correct the host in OTEL_EXPORTER_OTLP_ENDPOINT"),
    (r"[Pp]roxy", "Correct http_proxy or https_proxy, or put the receiver's host into no_proxy"),
)


def _advice(text: str) -> str:
    return next((advice for pattern, advice in _ABOUT_CONNECTIONS if re.search(pattern, text)), "")


def of_grpc(error: grpc.RpcError, endpoint: Endpoint) -> Answer:
    """Return the answer that a gRPC status means."""
    call: Any = error
    code, text = call.code(), one_line(call.details() or "")
    name, delay = code.name, _retry_delay(dict(call.trailing_metadata() or ()))
    if code in (_Code.RESOURCE_EXHAUSTED, _Code.UNKNOWN, _Code.INTERNAL) and _TOO_LARGE.search(text):
        return Answer(verdict=Verdict.TOO_LARGE, cause=name, text=text)
    if code is _Code.UNIMPLEMENTED and endpoint.compression != "none":
        return Answer(verdict=Verdict.COMPRESSION, cause=name, text=text)
    if code in (_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED):
        return Answer(verdict=Verdict.WAIT, cause=name, text=text, advice=_CREDENTIALS)
    if code in (_Code.UNIMPLEMENTED, _Code.NOT_FOUND):
        advice = "It does not take OTLP metrics there: correct OTEL_EXPORTER_OTLP_ENDPOINT, or enable its metrics"
        return Answer(verdict=Verdict.WAIT, cause=name, text=text, advice=_advice(text) or advice)
    if code in _DEFINITE | _UNCLEAR and not _advice(text):
        return Answer(verdict=Verdict.DATA, cause=name, text=text, delay=delay, definite=code in _DEFINITE)
    unanswered = code is not _Code.RESOURCE_EXHAUSTED and "failed to connect" not in text
    return Answer(verdict=Verdict.WAIT, cause=name, text=text, advice=_advice(text), delay=delay, unanswered=unanswered)


def _retry_delay(metadata: Mapping[str, Any]) -> float:
    """Return the delay of a RetryInfo: the standard has it among the status' details, the SDK looks beside them."""
    info, status = RetryInfo(), Status()
    try:
        status.ParseFromString(metadata.get("grpc-status-details-bin", b""))
        for detail in status.details:
            if detail.Unpack(info):
                break
        else:
            info.ParseFromString(metadata.get("google.rpc.retryinfo-bin", b""))
    except Exception:  # noqa: BLE001  # the receiver's bytes are anything
        return 0.0
    return max(0.0, float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9))


def of_http(status: int, text: str, delay: float, endpoint: Endpoint) -> Answer:
    """Return the answer that an HTTP status means."""
    cause, text = f"HTTP {status}", one_line(text)
    if 200 <= status < 300:
        return TAKEN
    if status == 413:
        return Answer(verdict=Verdict.TOO_LARGE, cause=cause, text=text)
    if status == 415 and endpoint.compression != "none":
        return Answer(verdict=Verdict.COMPRESSION, cause=cause, text=text)
    if status in (401, 403, 407):
        return Answer(verdict=Verdict.WAIT, cause=cause, text=text, advice=_CREDENTIALS)
    if status == 400 and re.search(r"HTTP request was sent to (an )?HTTPS|HTTP request to an HTTPS", text):
        return Answer(verdict=Verdict.WAIT, cause=cause, text=text, advice="Begin the endpoint with https://")
    if 300 <= status < 400 or status in (404, 405, 406, 415, 421, 426, 501, 505):
        return Answer(verdict=Verdict.WAIT, cause=cause, text=text, advice=_about_path(endpoint))
    if status in (408, 425, 429, 502, 503, 504) or status >= 505:
        return Answer(verdict=Verdict.WAIT, cause=cause, text=text, delay=delay, unanswered=status in (502, 504))
    return Answer(verdict=Verdict.DATA, cause=cause, text=text, delay=delay, definite=400 <= status < 500)


def _about_path(endpoint: Endpoint) -> str:
    if endpoint.variable == "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT":
        return f"{endpoint.variable} is used as it is: most receivers want a path like /v1/metrics in it"
    return "Set OTEL_EXPORTER_OTLP_METRICS_ENDPOINT to the whole URL at which the receiver takes OTLP metrics"


def of_failure(error: Exception | str) -> Answer:
    """Return the answer that a failed connection means."""
    text = one_line(str(error))
    cause = error if isinstance(error, str) else type(error).__name__
    refused = re.search(r"Failed to establish|resolve|refused", text)
    return Answer(verdict=Verdict.WAIT, cause=cause, text=text, advice=_advice(text), unanswered=not refused)


def of_success(content: bytes, kind: str) -> Answer:
    """Return the answer of a receiver that took the request, but for the points that it names.

    What is no such message says nothing about points. The request is taken all the same: its status says so. But a web
    page is of a proxy or a login that answers in place of a receiver.

    Args:
        content: The answer's body.
        kind: Its content type; empty for gRPC.
    """
    if not content.strip():  # an empty one, which some call JSON
        return TAKEN
    if kind and (_WEB_PAGE.search(kind) or content.lstrip(_BEFORE_TEXT)[:1] == b"<"):
        text = f"{kind}: {one_line(content[:200].decode(errors='replace'))}"
        return Answer(verdict=Verdict.WAIT, cause=WEB_PAGE, text=text, advice=_NO_RECEIVER)
    response: Any = ExportMetricsServiceResponse()
    try:
        if "json" in kind.lower() or (kind and content.lstrip()[:1] == b"{"):
            json_format.Parse(content, response, ignore_unknown_fields=True)
        else:
            response.ParseFromString(content)
    except Exception:  # noqa: BLE001  # the receiver's bytes are anything
        text = f"its answer is no OTLP message ({kind or 'gRPC'}: {one_line(content[:200].decode(errors='replace'))})"
        return Answer(verdict=Verdict.TAKEN, cause=UNREADABLE, text=text)
    partial = response.partial_success
    text, rejected = one_line(partial.error_message), max(0, partial.rejected_data_points)
    if not (text or rejected):
        return TAKEN
    return Answer(verdict=Verdict.TAKEN, cause=PARTIAL_SUCCESS, text=text, rejected=rejected)


def one_line(text: str) -> str:
    """Return a receiver's message as one line of characters that a log and a terminal can show."""
    return printable(" ".join(text.split())[:500])
