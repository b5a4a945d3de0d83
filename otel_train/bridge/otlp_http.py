"""Take OTLP/HTTP requests, protobuf and JSON, and answer them as OTLP's specification says."""

from __future__ import annotations

import asyncio
import hmac
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import IntEnum
from urllib.parse import urlsplit

import h11
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from otel_train.bridge.errors import BusyError, InvalidRequestError
from otel_train.bridge.http_connection import Answer, Body, SlowBodyError
from otel_train.bridge.intake import MAX_MESSAGE_BYTES, RETRY_SECONDS, Intake
from otel_train.bridge.otlp_json import InvalidFieldError, read_request

METRICS_PATH = "/v1/metrics"
HEALTH_PATH = "/healthz"
HEALTHY = b"otel_train bridge serves\n"
"""Answer to a health check."""
JSON, PROTOBUF = "application/json", "application/x-protobuf"
_GZIP = ("gzip", "x-gzip")
MAX_MEMBERS = 64
"""Members of a gzip file. SDKs make one; empty ones take 20 bytes each, and each costs a copy of what follows."""


class _Code(IntEnum):
    """Codes of google.rpc.Code."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_CODES = {
    400: _Code.INVALID_ARGUMENT,
    401: _Code.UNAUTHENTICATED,
    403: _Code.PERMISSION_DENIED,
    404: _Code.NOT_FOUND,
    405: _Code.UNIMPLEMENTED,
    408: _Code.DEADLINE_EXCEEDED,
    411: _Code.INVALID_ARGUMENT,
    413: _Code.RESOURCE_EXHAUSTED,
    415: _Code.UNIMPLEMENTED,
    503: _Code.UNAVAILABLE,
}


class _RefusedError(Exception):
    """The request can't be taken."""

    def __init__(self, status: int, why: str, *headers: tuple[str, str]) -> None:
        super().__init__(why)
        self.status, self.why, self.headers = status, why, headers


@dataclass(frozen=True, slots=True)
class _Head:
    """Line and headers of a request, as far as they matter."""

    method: str
    path: str
    headers: dict[str, list[str]] = field(default_factory=dict)

    def one(self, name: str) -> str:
        """Return a header's value; empty where there is none, or several that say different things."""
        values = {value.strip() for value in self.headers.get(name, [])}
        return values.pop() if len(values) == 1 else ""

    @property
    def media_type(self) -> str:
        """Type of the body, without its parameters."""
        return self.one("content-type").partition(";")[0].strip().lower()


class OtlpHttp:
    """The OTLP metrics service over HTTP.

    A page of the web that its user's browser shows reaches a port of the loopback too. What a browser sends to another
    origin without asking first has no content type of OTLP's; what it asks for (OPTIONS) is refused; and what a page
    sends to its own origin, a name that its owner has pointed here, has the header `Origin`, which programs don't send.

    Args:
        intake: Takes the requests.
        token: The token that senders must give in `authorization: Bearer TOKEN`; empty for no check.
    """

    def __init__(self, intake: Intake, token: str = "") -> None:
        self._intake = intake
        self._authorization = f"Bearer {token}".encode() if token else b""
        # One thread each: a large JSON text takes a second, and the others are not to wait for it.
        self._unpacking = ThreadPoolExecutor(1, thread_name_prefix="otel_train-bridge-gzip")
        self._parsing = ThreadPoolExecutor(1, thread_name_prefix="otel_train-bridge-json")

    def close(self) -> None:
        """End its threads, once each is done with the text that it has: that is not waited for."""
        for pool in (self._unpacking, self._parsing):
            pool.shutdown(wait=False, cancel_futures=True)

    async def respond(self, request: h11.Request, body: Body) -> Answer:
        """Take a request, and return its answer."""
        head = _head_of(request)
        if head.path == HEALTH_PATH and head.method in ("GET", "HEAD"):
            return Answer(200, HEALTHY, (("Content-Type", "text/plain"),))
        media_type = PROTOBUF if head.media_type == PROTOBUF else JSON  # as the sender's, if that is OTLP's
        try:
            compressed = _check_head(head, self._authorization)
            return _encode(200, await self._take(media_type, body, compressed=compressed), media_type)
        except _RefusedError as error:
            return _refusal(error, media_type)
        except BusyError as error:
            return _refusal(_RefusedError(503, str(error), ("Retry-After", str(RETRY_SECONDS))), media_type)
        except InvalidRequestError as error:
            return _refusal(_RefusedError(400, str(error)), media_type)

    async def _take(self, media_type: str, body: Body, *, compressed: bool) -> Message:
        if body.length is None and not body.chunked:
            raise _RefusedError(411, "give the body's length, or send it in chunks")
        if (body.length or 0) > MAX_MESSAGE_BYTES:
            raise self._too_large()
        run = asyncio.get_running_loop().run_in_executor
        with self._intake.holding() as held:
            content = bytearray()
            try:
                while part := await body.read():
                    held.add(len(part))
                    content += part
                    if len(content) > MAX_MESSAGE_BYTES:
                        raise self._too_large()
            except SlowBodyError:
                raise _RefusedError(408, "the body did not come in time, or in too many pieces") from None
            data = bytes(content)
            if compressed:
                data = await self._unpack(data)
                held.add(len(data))
            if media_type == JSON:
                try:
                    data = await run(self._parsing, read_request, data)
                except InvalidFieldError as error:
                    raise self._intake.invalid(str(error), f"JSON {error.field}") from None
                except ValueError as error:
                    raise self._intake.invalid(str(error), "JSON") from None
        return await self._intake.take(data)

    async def _unpack(self, data: bytes) -> bytes:
        try:
            unpacked = await asyncio.get_running_loop().run_in_executor(self._unpacking, gunzip, data)
        except (zlib.error, EOFError) as error:
            raise self._intake.invalid(f"its gzip is damaged: {error}", "gzip") from None
        if len(unpacked) > MAX_MESSAGE_BYTES:
            raise self._too_large()
        return unpacked

    def _too_large(self) -> _RefusedError:
        self._intake.counts.refused_requests += 1
        return _RefusedError(413, f"a request is larger than {MAX_MESSAGE_BYTES} bytes; send less at once")


def _head_of(request: h11.Request) -> _Head:
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    try:
        path = urlsplit(request.target.decode("latin-1")).path
    except ValueError:  # as of http://[
        path = ""
    return _Head(request.method.decode("latin-1"), path, headers)


def _check_head(head: _Head, authorization: bytes) -> bool:
    """Tell whether a request to the service is compressed.

    Raises:
        _RefusedError: It is refused, whatever its body is.
    """
    if head.path != METRICS_PATH:
        raise _RefusedError(404, f"this bridge takes metrics only, at {METRICS_PATH}")
    if head.method != "POST":
        raise _RefusedError(405, "send metrics with POST", ("Allow", "POST"))
    if "origin" in head.headers:
        raise _RefusedError(403, "a page in a browser can't send to a bridge")
    given = head.one("authorization").encode("latin-1")
    if authorization and not hmac.compare_digest(given, authorization):
        why = "the authorization header must be 'Bearer' and the token"
        raise _RefusedError(401, why, ("WWW-Authenticate", "Bearer"))
    if head.media_type not in (JSON, PROTOBUF):
        raise _RefusedError(415, f"content-type must be {PROTOBUF} or {JSON}")
    encoding = head.one("content-encoding").lower()
    if encoding not in ("", "identity", *_GZIP) or len(head.headers.get("content-encoding", [])) > 1:
        raise _RefusedError(415, "content-encoding must be gzip, or none", ("Accept-Encoding", "gzip"))
    return encoding in _GZIP


def gunzip(data: bytes) -> bytes:
    """Return what gzip's members hold, or the first MAX_MESSAGE_BYTES and more of it.

    Raises:
        EOFError: The end is missing.
        zlib.error: It is not gzip's format.
    """
    content = bytearray()
    for _ in range(MAX_MEMBERS):
        member = zlib.decompressobj(wbits=31)
        content += member.decompress(data, MAX_MESSAGE_BYTES + 1 - len(content))
        if not member.eof and len(content) <= MAX_MESSAGE_BYTES:
            raise EOFError("its end is missing")
        data = member.unused_data
        if not data or len(content) > MAX_MESSAGE_BYTES:
            return bytes(content)
    raise zlib.error(f"it has more than {MAX_MEMBERS} members")


def _refusal(error: _RefusedError, media_type: str) -> Answer:
    return _encode(error.status, Status(code=_CODES[error.status], message=error.why), media_type, error.headers)


def _encode(status: int, message: Message, media_type: str, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    content = message.SerializeToString() if media_type == PROTOBUF else MessageToJson(message, indent=None).encode()
    return Answer(status, content, (("Content-Type", media_type), *headers))
