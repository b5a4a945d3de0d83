"""The receiver of OTLP/HTTP: forms of a request, what is refused and how, and that no sender delays another."""

from __future__ import annotations

import gzip
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from google.protobuf.json_format import MessageToJson
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from otel_train.bridge import BridgeConfig, BridgeError, Inbox, read_run
from otel_train.bridge import http_connection as connections
from otel_train.bridge import http_port as ports
from otel_train.bridge.bridge_service import Bridge
from otel_train.bridge.intake import MAX_MESSAGE_BYTES
from otel_train.bridge.otlp_http import MAX_MEMBERS
from otel_train.bridge.server import Server
from tests.support.http_client import JSON, PROTOBUF, HttpClient, send_raw
from tests.support.slow_sender import SlowHttpSenders
from tests.support.step_requests import step_request
from tests.support.waiting import wait_until

ANY = "127.0.0.1:0"
HEAD = f"POST /v1/metrics HTTP/1.1\r\nHost: bridge\r\nContent-Type: {JSON}\r\n"


def serve(inbox: Inbox, stack: ExitStack, **options: Any) -> Server:
    server = Server(inbox, ANY, http_listen=ANY, **options)
    stack.callback(server.stop, 1.0)
    server.start()
    return server


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve HTTP, without wandb, and return where."""
    with Inbox(tmp_path_factory.mktemp("inbox")) as inbox, ExitStack() as stack:
        yield serve(inbox, stack, token="s3cret").http_address


@pytest.fixture
def client(address: str) -> Iterator[HttpClient]:
    """Connect to the served port."""
    with HttpClient(address) as client:
        yield client


def test_each_form_becomes_row(start: Any) -> None:
    """Protobuf and JSON, compressed or in chunks, over one connection: each is a row, and answered in its own form."""
    bridge = start(http_listen=ANY)
    data = [step_request(step, {"loss": step / 8}) for step in range(1, 7)]
    texts = [MessageToJson(request).encode() for request in data]
    with HttpClient(bridge.bridge.http_address) as client:
        answers = [
            client.send(data[0].SerializeToString()),
            client.send(gzip.compress(data[1].SerializeToString()), Content_Encoding="gzip"),
            client.send(iter([data[2].SerializeToString()[:9], data[2].SerializeToString()[9:]])),
        ]
        ours = client.local_address
        answers += [
            client.send(texts[3], f"{JSON}; charset=utf-8"),
            client.send(gzip.compress(texts[4][:99]) + gzip.compress(texts[4][99:]), JSON, Content_Encoding="x-gzip"),
            client.send(iter([texts[5]]), "Application/JSON", path="/v1/metrics?x=1"),
        ]
        assert client.local_address == ours
    assert [answer.status for answer in answers] == [200] * 6
    assert [answer.headers["Content-Type"] for answer in answers] == [PROTOBUF] * 3 + [JSON] * 3
    assert [answer.content for answer in answers] == [b""] * 3 + [b"{}"] * 3
    bridge.wait(6)
    bridge.stop()
    assert [row.values["loss"] for row in read_run(bridge.state, "run")] == [step / 8 for step in range(1, 7)]


TOKEN = "Bearer s3cret"


def test_wrong_field_is_told(client: HttpClient, caplog: pytest.LogCaptureFixture) -> None:
    """The sender is told which field of a JSON request is wrong, each time; the log says it once for each field."""
    text = MessageToJson(step_request(1, {"loss": 0.5}))
    for value in ("0.5x", "0.5y"):
        answer = client.send(text.replace("0.5", f'"{value}"').encode(), JSON, Authorization=TOKEN)
        message = json.loads(answer.content)["message"]
        assert (answer.status, "asDouble: " in message, value in message) == (400, True, True)
    client.send(text.replace('"timeUnixNano": "', '"timeUnixNano": "x').encode(), JSON, Authorization=TOKEN)
    client.send(b"\xff" * 9, Authorization=TOKEN)
    logged = [record.getMessage() for record in caplog.records]
    assert sum("asDouble: " in line for line in logged) == 1
    assert sum("timeUnixNano: " in line for line in logged) == 1


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, {"body": b"\xff" * 9}),
        (400, {"body": b"{", "content_type": JSON}),
        (400, {"body": b"no gzip", "Content_Encoding": "gzip"}),
        (400, {"body": gzip.compress(b"cut")[:-4], "Content_Encoding": "gzip"}),
        (400, {"body": gzip.compress(b"") * (MAX_MEMBERS + 1), "Content_Encoding": "gzip"}),
        (401, {"Authorization": "Bearer other"}),
        (401, {"Authorization": ""}),
        (403, {"Origin": "http://evil.example"}),
        (404, {"path": "/v1/traces"}),
        (405, {"method": "GET"}),
        (405, {"method": "OPTIONS"}),
        (413, {"body": b"x" * (MAX_MESSAGE_BYTES + 1)}),
        (413, {"body": (b"x" * 2**20 for _ in range(9))}),
        (413, {"body": gzip.compress(b"x" * (MAX_MESSAGE_BYTES + 1)), "Content_Encoding": "gzip"}),
        (415, {"content_type": "text/plain"}),
        (415, {"content_type": "text/plain; application/json"}),
        (415, {"content_type": ""}),
        (415, {"Content_Encoding": "br"}),
    ],
    ids=[
        "no protobuf", "no json", "no gzip", "cut gzip", "many members", "other token", "no token", "web page",
        "other path", "get", "preflight", "large", "large in chunks", "large when unpacked", "text", "two types",
        "no type", "brotli",
    ],
)  # fmt: skip
def test_refusal_says_why(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch, status: int, request_: dict[str, Any]
) -> None:
    """What can't be taken has its status, and a google.rpc.Status in the request's form; the next is taken."""
    monkeypatch.setattr(connections, "LINGER_SECONDS", 60.0)
    answer = client.send(**{"Authorization": TOKEN, **request_})
    assert answer.status == status
    if answer.headers["Content-Type"] == JSON:
        assert json.loads(answer.content)["message"]
    else:
        assert Status.FromString(answer.content).message
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert client.send(Authorization=TOKEN).status == 200


def test_health_needs_no_token(client: HttpClient) -> None:
    """A health check is answered without a token, and nothing else is told."""
    assert client.send(None, "", method="GET", path="/healthz").content == b"otel_train bridge serves\n"
    assert client.send(None, "", method="HEAD", path="/healthz").status == 200


def test_expected_continue_is_sent(address: str) -> None:
    """A client that waits for `100 Continue` gets it, but not where its request is refused without its body."""
    head = f"{HEAD}Expect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n"
    taken = send_raw(address, f"{head}Authorization: {TOKEN}\r\n\r\n".encode(), b"{}")
    assert taken.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert send_raw(address, f"{head}\r\n".encode()).startswith(b"HTTP/1.1 401 Unauthorized\r\n")


@pytest.mark.parametrize(
    ("seconds", "head", "status"),
    [
        ("HEAD_SECONDS", "POST /v1", b""),
        ("BODY_SECONDS", f"{HEAD}Authorization: {TOKEN}\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 408 "),
        ("", f"GET /{'x' * 20_000}", b"HTTP/1.1 431 "),
        ("", f"{HEAD}Authorization: {TOKEN}\r\nConnection: close\r\n\r\n", b"HTTP/1.1 411 "),
        ("", "GET http://[ HTTP/1.0\r\n\r\n", b"HTTP/1.1 404 "),
        ("", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 404 "),
        ("", f"{HEAD}Content-Length: 1\r\nContent-Length: 2\r\n\r\n", b"HTTP/1.1 400 "),
        ("", f"{HEAD}Authorization: {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 400 "),
        (
            "",
            f"{HEAD}Authorization: {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n" + "1\r\n{\r\n" * 17_000,
            b"HTTP/1.1 408 ",
        ),
    ],
    ids=[
        "slow head",
        "slow body",
        "long head",
        "no length",
        "bad target",
        "HTTP/2",
        "two lengths",
        "bad chunk",
        "many chunks",
    ],
)
def test_connection_has_bounds(
    address: str, monkeypatch: pytest.MonkeyPatch, seconds: str, head: str, status: bytes
) -> None:
    """A request that is too slow, too long or not HTTP/1.1 ends its connection, with an answer where that can be."""
    monkeypatch.setattr(connections, "LINGER_SECONDS", 60.0)
    if seconds:
        monkeypatch.setattr(connections, seconds, 0.2)
    answer = send_raw(address, head.encode())
    assert (answer[: len(status)], bool(answer)) == (status, bool(status))


def test_slow_http_senders_delay_nobody(address: str) -> None:
    """Beside sixteen senders of a byte a second, and heads that never end, a healthy one is answered."""
    with SlowHttpSenders(address, TOKEN, 16), HttpClient(address) as client:
        assert [client.send(Authorization=TOKEN).status for _ in range(20)] == [200] * 20


def await_room(client: HttpClient) -> None:
    """Wait until the port takes a client: it learns of the ends of others in its own time."""
    wait_until(lambda: client.send(Authorization=TOKEN).status == 200, what="a connection's end")


def test_connections_are_bounded(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bound of connections the port asks to try again, and serves again once one has ended."""
    monkeypatch.setattr(ports, "MAX_CONNECTIONS", 1)
    with HttpClient(address) as first:
        await_room(first)
        assert send_raw(address, b"GET").startswith(b"HTTP/1.1 503 ")
    with HttpClient(address) as second:
        await_room(second)


def test_unkept_request_asks_for_retry(inbox: Inbox) -> None:
    """A request that SQLite can't keep is answered 503 with Retry-After, and is taken once there is room."""
    request = step_request(1, {f"metric{index}": 1.0 for index in range(2000)}).SerializeToString()
    with ExitStack() as stack, HttpClient(serve(inbox, stack).http_address) as client:
        inbox.store.connection.execute("PRAGMA max_page_count = 1")  # as many as there are
        answer = client.send(request)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        inbox.store.connection.execute("PRAGMA max_page_count = 1000000")
        assert client.send(request).status == 200
    assert len(inbox.reader.rows("run")) == 1


def test_partial_success_has_requests_form(inbox: Inbox) -> None:
    """A request with an invalid point is taken without it, which the answer says as protobuf or as JSON."""
    request = step_request(1, {"n" * 600: 1.0})
    with ExitStack() as stack, HttpClient(serve(inbox, stack).http_address) as client:
        message = ExportMetricsServiceResponse.FromString(client.send(request.SerializeToString()).content)
        text = json.loads(client.send(MessageToJson(request).encode(), JSON).content)
    assert message.partial_success.rejected_data_points == 1
    assert text["partialSuccess"]["rejectedDataPoints"] == "1"
    assert "longer than" in text["partialSuccess"]["errorMessage"]


def test_tls_serves_both_ports(start: Any, authority: trustme.CA, tls_files: dict[str, Path]) -> None:
    """The files of TLS are for the HTTP port too, whose certificate a client can check."""
    bridge = start(http_listen=ANY, **tls_files)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with HttpClient(bridge.bridge.http_address, trust) as client:
        assert client.send(step_request(1).SerializeToString()).status == 200


@pytest.mark.parametrize(
    ("listen", "given", "http_listen"),
    [
        ("127.0.0.1:4317", "", "127.0.0.1:4318"),
        ("[::1]:4317", "", "[::1]:4318"),
        ("127.0.0.1:0", "", "off"),
        ("127.0.0.1:4317", "off", "off"),
        ("127.0.0.1:5000", "127.0.0.1:5001", "127.0.0.1:5001"),
    ],
)
def test_standard_ports_go_together(tmp_path: Path, listen: str, given: str, http_listen: str) -> None:
    """HTTP has its standard port where gRPC has its own, and is off where another is given for gRPC alone."""
    assert BridgeConfig(state=tmp_path, listen=listen, http_listen=given).http_listen == http_listen


def test_address_file_names_http(start: Any, tmp_path: Path) -> None:
    """STATE/http-address says where HTTP is taken; another bridge there is an error that leaves its state free."""
    bridge = start(http_listen=ANY)
    address = (bridge.state / "http-address").read_text().strip()
    assert address == bridge.bridge.http_address
    for _ in range(2):
        with pytest.raises(BridgeError, match=f"can't listen on {address}: Address already in use"):
            Bridge(BridgeConfig(state=tmp_path / "other", listen=ANY, http_listen=address))
    bridge.stop()
    assert not (bridge.state / "http-address").exists()
