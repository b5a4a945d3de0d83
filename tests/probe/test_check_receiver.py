"""What a receiver answers to the points of a check becomes findings that say what to set."""

from __future__ import annotations

import json
import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from otel_train.bridge import BridgeConfig
from otel_train.bridge.collection_times import data_points
from otel_train.cli import main
from otel_train.diagnose.finding import Finding, Severity
from otel_train.probe.check_receiver import check_receiver
from otel_train.testing import OtlpReceiver
from tests.support.otlp_http import Respond, Response, http_server
from tests.support.ports import free_port
from tests.support.running_bridge import RunningBridge

HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}


def taking(body: bytes) -> Response:
    """Take whatever comes."""
    del body
    return Response()


def once() -> Respond:
    """Return what takes a request once, and refuses it as a store without a window for repetitions does."""
    taken: set[bytes] = set()

    def respond(body: bytes) -> Response:
        if body in taken:
            return Response(409, text="store locally: conflict: duplicate sample")
        taken.add(body)
        return Response()

    return respond


def in_order() -> Respond:
    """Return what refuses a point that is older than the newest."""
    newest = 0

    def respond(body: bytes) -> Response:
        nonlocal newest
        (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
        times = [point.time_unix_nano for metric in resource.scope_metrics[0].metrics for point in data_points(metric)]
        if max(times) < newest - 60 * 10**9:
            return Response(400, text="out of order sample")
        newest = max(newest, *times)
        return Response()

    return respond


def rejecting(body: bytes) -> Response:
    """Take a request but for one of its points."""
    del body
    partial = ExportMetricsPartialSuccess(rejected_data_points=1, error_message="name is too long")
    return Response(text=ExportMetricsServiceResponse(partial_success=partial).SerializeToString().decode())


def of_check(findings: tuple[Finding, ...], check: str) -> Finding:
    """Return the finding of a check."""
    (finding,) = (finding for finding in findings if finding.check == check)
    return finding


@pytest.mark.parametrize(
    ("respond", "check", "severity", "words"),
    [
        (taking, "receiver", Severity.OK, ""),
        (taking, "gzip", Severity.OK, ""),
        (taking, "repetition", Severity.UNKNOWN, ""),
        (taking, "arrival", Severity.NOTE, "--query"),
        (once(), "repetition", Severity.WARNING, "out_of_order_time_window"),
        (in_order(), "older points", Severity.WARNING, "out_of_order_time_window"),
        (rejecting, "partial success", Severity.WARNING, "own words"),
        (lambda _: Response(401, text="no token"), "credentials", Severity.CRITICAL, "OTEL_EXPORTER_OTLP_HEADERS"),
        (lambda _: Response(503), "receiver", Severity.CRITICAL, ""),
        (lambda _: Response(text="<html>Welcome</html>"), "receiver", Severity.CRITICAL, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (lambda _: Response(text="\x7f\x7f"), "receiver", Severity.CRITICAL, "is lost"),
        (
            lambda _: Response(404, text="otlp write receiver needs to be enabled with --web.enable-otlp-receiver"),
            "receiver",
            Severity.CRITICAL,
            "Start Prometheus with --web.enable-otlp-receiver",
        ),
    ],
)
def test_answers_become_findings(respond: Respond, check: str, severity: Severity, words: str) -> None:
    """Each answer is judged as what it means for a job, and the remedy names the setting."""
    with http_server(respond) as server:
        findings = check_receiver(f"http://127.0.0.1:{server.server_port}", environ=HTTP).findings
    finding = of_check(findings, check)
    assert finding.severity is severity
    assert words in finding.remedy


def test_unread_encoding_is_no_refusal() -> None:
    """A receiver that calls compressed data wrong takes points, as sidecars then send them plain."""

    def respond(body: bytes) -> Response:
        try:
            ExportMetricsServiceRequest.FromString(body)
        except DecodeError:
            return Response(400, text="unsupported compression")
        return Response()

    environ = HTTP | {"OTEL_EXPORTER_OTLP_COMPRESSION": "deflate"}
    with http_server(respond) as server:
        findings = check_receiver(f"http://127.0.0.1:{server.server_port}", environ=environ).findings
    assert of_check(findings, "receiver").severity is Severity.OK


@pytest.mark.parametrize(("given", "environ"), [("", {}), ("/", HTTP), ("/opentelemetry", HTTP)])
def test_other_path_is_discovered(given: str, environ: dict[str, str]) -> None:
    """Where a store takes OTLP at another path, or over the other protocol, the variables for it are printed."""
    with http_server(taking) as server:
        server.only_path = "/opentelemetry/v1/metrics"
        base = f"http://127.0.0.1:{server.server_port}"
        findings = check_receiver(base + given, environ=environ).findings
    variables = "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
    finding = of_check(findings, "receiver")
    assert finding.severity is Severity.CRITICAL
    assert finding.remedy == f"Set {variables} OTEL_EXPORTER_OTLP_METRICS_ENDPOINT={base}/opentelemetry/v1/metrics"


@pytest.mark.parametrize("environ", [{}, HTTP], ids=["grpc", "http"])
def test_plain_text_to_tls_is_named(environ: dict[str, str]) -> None:
    """A port that speaks TLS looks like a gRPC port, or like none, to who speaks plain text."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with http_server(taking) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        findings = check_receiver(f"http://127.0.0.1:{server.server_port}", environ=environ).findings
    assert of_check(findings, "receiver").remedy == "It speaks TLS: begin the endpoint with https://"


def test_silent_receiver_is_named() -> None:
    """A port that takes connections and never answers is told apart from one where nobody listens."""
    environ = {**HTTP, "OTEL_EXPORTER_OTLP_TIMEOUT": "0.05"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        findings = check_receiver(f"http://127.0.0.1:{server.getsockname()[1]}", environ=environ).findings
    assert "does not answer" in of_check(findings, "receiver").remedy


def test_grpc_receiver_is_discovered() -> None:
    """HTTP that is spoken to a gRPC port is seen as that; the points arrive, none as a step or a cluster's value."""
    with OtlpReceiver() as receiver:
        findings = check_receiver(f"http://{receiver.address}", environ=HTTP).findings
        names = {point.name for point in receiver.points}
    expected = f"Set OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_ENDPOINT=http://{receiver.address}"
    assert of_check(findings, "receiver").remedy == expected
    assert names == {"telemetry.doctor.probe", "telemetry.doctor.points"}


def test_bridge_makes_no_run(tmp_path: Path) -> None:
    """Our bridge takes the points, and wandb gets no run of them."""
    running = RunningBridge(BridgeConfig(listen="127.0.0.1:0", state=tmp_path))
    with closing(running.channel):
        findings = check_receiver(f"http://{running.address}", environ={}).findings
    running.stop()
    assert {finding.severity for finding in findings} == {Severity.OK, Severity.NOTE, Severity.UNKNOWN}
    assert list(tmp_path.rglob("*.wandb")) == []


def test_command_judges_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the receiver, as a sidecar reads it; exit codes and JSON are doctor's."""
    run = CliRunner().invoke
    with http_server(taking) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        text = run(main, ["doctor", "--receiver"], env={"COLUMNS": "80"})
        data = run(main, ["doctor", "--receiver", "--json"])
    assert (text.exit_code, data.exit_code) == (0, 0)
    assert text.output.endswith("nothing is wrong\n")
    assert max(map(len, text.output.splitlines())) <= 80
    content = json.loads(data.output)
    assert content["healthy"]
    assert content["run_id"].startswith("doctor-")
    away = run(main, ["doctor", "--receiver", f"http://127.0.0.1:{free_port()}"])
    assert (away.exit_code, "start the receiver" in away.output) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--receiver", "ftp://somewhere"], "--receiver must be http"),
        (["my-run", "--receiver", "http://127.0.0.1:1"], "leave SOURCE"),
        (["--query", "http://127.0.0.1:1"], "needs --receiver"),
        (["--receiver", "http://127.0.0.1:1", "--query", "http://127.0.0.1:1"], "does not answer"),
    ],
)
def test_wrong_calls_are_refused(arguments: list[str], words: str) -> None:
    """A wrong address, or options that exclude each other, are an error of one line with exit code 2."""
    done = CliRunner().invoke(main, ["doctor", *arguments])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert words in done.output
