"""Send one request over gRPC or HTTP, once, and return the receiver's answer."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import grpc
from google.rpc.status_pb2 import Status

from otel_train.endpoint import Endpoint
from otel_train.otlp.answers import Answer, of_failure, of_grpc, of_http, of_success
from otel_train.otlp.protocol import OtlpProtocol
from otel_train.otlp.receiver_clock import DATE, ReceiverClock

_METHOD = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
MAX_ANSWER = 1 << 20
"""Bytes of an HTTP answer that are read."""


class Connection(Protocol):
    """One receiver."""

    clock: ReceiverClock
    """Its clock, as far as it tells the time."""

    def send(self, body: bytes, timeout: float) -> Answer:
        """Send a request within that many seconds; never raises for what the receiver or the network does."""

    def close(self) -> None:
        """Close the connection."""


def connect(endpoint: Endpoint) -> Connection:
    """Return a connection that the SDK's exporter has made: it knows the variables for headers and certificates.

    The other protocol's libraries are not loaded.
    """
    return _HttpConnection(endpoint) if endpoint.protocol is OtlpProtocol.HTTP else _GrpcConnection(endpoint)


class _GrpcConnection:
    def __init__(self, endpoint: Endpoint) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

        self.clock = clock = ReceiverClock()

        class Exporter(OTLPMetricExporter):
            def call(self, body: bytes, timeout: float) -> bytes:
                channel: Any = self._channel
                before = time.time()
                call = channel.unary_unary(_METHOD).future(body, metadata=self._headers, timeout=timeout)
                try:
                    # gRPC's own deadline goes by the wall clock, which may be set back.
                    answer: bytes = call.result(timeout=timeout + 1.0)
                    clock.note(str(dict(call.initial_metadata() or ()).get(DATE, "")), before, time.time())
                finally:
                    call.cancel()
                return answer

            def reconnect(self) -> None:
                channel: Any = self._channel
                channel.close()
                self._initialize_channel_and_stub()  # type: ignore[no-untyped-call]

        self._endpoint = endpoint
        self._exporter = Exporter(**_grpc_arguments(endpoint))

    def send(self, body: bytes, timeout: float) -> Answer:
        try:
            return of_success(self._exporter.call(body, timeout), "")
        except grpc.RpcError as error:
            answer = of_grpc(error, self._endpoint)
            if answer.cause == grpc.StatusCode.UNAVAILABLE.name:
                self._exporter.reconnect()  # else gRPC waits for minutes before it tries to connect again
            return answer
        except grpc.FutureTimeoutError:
            self._exporter.reconnect()
            return of_failure(_no_end(timeout))

    def close(self) -> None:
        self._exporter.shutdown()


class _HttpConnection:
    def __init__(self, endpoint: Endpoint) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

        class Exporter(OTLPMetricExporter):
            @property
            def session(self) -> Any:
                return self._client._transport._session  # type: ignore[attr-defined]  # noqa: SLF001

            @property
            def headers(self) -> dict[str, str]:
                return self._client._headers  # noqa: SLF001

            def compress(self, body: bytes) -> bytes:
                return self._client._compress(body)  # noqa: SLF001

        self._endpoint = endpoint
        self._exporter = Exporter(**_http_arguments(endpoint))
        self._sockets = _Sockets()
        self.clock = ReceiverClock()
        for scheme in ("http://", "https://"):
            self._exporter.session.mount(scheme, self._sockets.adapter())

    def send(self, body: bytes, timeout: float) -> Answer:
        deadline = time.monotonic() + timeout
        # Each read of an answer may be in time, and the answer have no end.
        watch = threading.Timer(timeout, self._sockets.shut, [self._sockets.begin()])
        watch.daemon = True
        watch.start()
        body = self._exporter.compress(body)
        try:
            try:
                answer = self._post(body, timeout)
            except ConnectionError:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                answer = self._post(body, left)  # a server closes connections that were idle for a while
        except Exception as error:  # noqa: BLE001  # of requests, urllib3, http.client, ssl and the network
            answer = of_failure(error)
        finally:
            watch.cancel()
            self._sockets.forget()
        return of_failure(_no_end(timeout)) if time.monotonic() >= deadline else answer

    def _post(self, body: bytes, timeout: float) -> Answer:
        from requests.exceptions import ConnectionError as Failed  # noqa: PLC0415

        before = time.time()
        try:
            response = self._exporter.session.post(
                self._endpoint.target,
                data=body,
                headers=self._exporter.headers,
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            )
        except Failed as error:
            if "Connection aborted" in str(error):
                raise ConnectionResetError(str(error)) from error
            raise
        self.clock.note(response.headers.get(DATE, ""), before, time.time())
        with response:
            kind = response.headers.get("content-type", "") or "no content type"
            content = _read(response.raw)
            if 200 <= response.status_code < 300:
                return of_success(content, kind)
            text = _text(content, kind) or response.reason or ""
            delay = _retry_after(response.headers.get("retry-after", ""))
            return of_http(response.status_code, text, delay, self._endpoint)

    def close(self) -> None:
        self._exporter.shutdown()


def _grpc_arguments(endpoint: Endpoint) -> dict[str, Any]:
    """Return the arguments of the SDK's gRPC exporter: it reads the endpoint's variables differently from the standard.

    Headers and certificates it reads itself.
    """
    # A proxy of the environment can't reach this machine's own addresses.
    options = (("grpc.enable_http_proxy", 0),) if endpoint.loopback else ()
    return {
        "endpoint": endpoint.target,
        "insecure": not endpoint.secure,
        "timeout": endpoint.timeout,
        "compression": grpc.Compression.Gzip if endpoint.compression == "gzip" else grpc.Compression.NoCompression,
        "channel_options": options,
    }


def _http_arguments(endpoint: Endpoint) -> dict[str, Any]:
    """Return the arguments of the SDK's HTTP exporter; headers and certificates it reads itself."""
    from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415

    return {
        "endpoint": endpoint.target,
        "timeout": endpoint.timeout,
        "compression": Compression(endpoint.compression),
        "session": None if not endpoint.loopback else _direct_session(),
    }


def _direct_session() -> Any:
    """Return a session that goes through no proxy of the environment."""
    from requests import Session  # noqa: PLC0415

    class DirectSession(Session):
        def merge_environment_settings(self, url: Any, proxies: Any, *settings: Any) -> Any:
            direct = {**proxies, "no_proxy": urlsplit(url).hostname}
            return super().merge_environment_settings(url, direct, *settings)

    return DirectSession()


def _no_end(timeout: float) -> str:
    return f"the receiver has not ended its answer in {timeout:.3g} s"


def _read(raw: Any) -> bytes:
    """Return an answer's body, decompressed; that it can't be is no fault of the request."""
    from urllib3.exceptions import DecodeError  # noqa: PLC0415

    try:
        content: bytes = raw.read(MAX_ANSWER, decode_content=True)
    except DecodeError as error:
        return b"\xff" + str(error).encode()  # no message begins like this
    return content


def _text(content: bytes, kind: str) -> str:
    """Return the message in an error's body: the standard has a status there; a web page is ignored."""
    if "protobuf" in kind:
        status: Any = Status()
        try:
            status.ParseFromString(content)
        except Exception:  # noqa: BLE001  # the receiver's bytes are anything
            return ""
        return str(status.message)
    text = content.decode(errors="replace").strip()
    return "" if text.startswith("<") else text


def _retry_after(value: str) -> float:
    """Return the seconds of a Retry-After header: a number or a date; 0 for anything else."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


class _Sockets:
    """The sockets of a session, so that a request of another thread can be ended."""

    def __init__(self) -> None:
        self._open: set[socket.socket] = set()
        self._request, self._ended = 0, 0
        """Numbers of the newest request, and of the last one whose time was over."""
        self._lock = threading.Lock()

    def begin(self) -> int:
        """Begin a request, and return its number."""
        self._request += 1
        return self._request

    def shut(self, request: int) -> None:
        """End a request: shut the sockets down, which ends every read and write, and those that it connects later."""
        with self._lock:
            self._ended = request
            if request == self._request:
                for connection in self._open:
                    _shut(connection)

    def add(self, connection: socket.socket) -> None:
        """Add one that was connected, which may have taken as long as the request has: its host's name was sought."""
        with self._lock:
            self._open.add(connection)
            if self._ended == self._request:
                _shut(connection)

    def forget(self) -> None:
        """Drop those that are closed."""
        with self._lock:
            self._open = {connection for connection in self._open if connection.fileno() >= 0}

    def adapter(self) -> Any:
        """Return a transport of `requests` whose connections are kept here."""
        from requests.adapters import HTTPAdapter  # noqa: PLC0415

        sockets = self

        class Adapter(HTTPAdapter):
            def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
                pool: Any = super().get_connection_with_tls_context(*arguments, **options)
                base = pool.ConnectionCls
                if not hasattr(base, "noted"):

                    class Noted(base):  # type: ignore[misc,valid-type]
                        noted = True

                        def connect(self) -> None:
                            super().connect()
                            sockets.add(self.sock)

                    pool.ConnectionCls = Noted
                return pool

        return Adapter()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
