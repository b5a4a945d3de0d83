"""A real collector between a sender and a receiver that rejects points."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service

from otel_train.endpoint import Endpoint
from otel_train.otlp.answers import TAKEN
from otel_train.otlp.exporter import Exporter
from otel_train.smoke.child_process import running_process
from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.otlp_http import Response, http_server
from tests.support.ports import free_port
from tests.support.step_requests import step_request
from tests.support.waiting import wait_until


def is_logged(log: Path, times: int) -> bool:
    """Tell whether the collector has so often said that points were rejected."""
    return log.read_text().count('"dropped_data_points": 3') == times


@pytest.mark.stack
def test_collector_passes_none_on(tmp_path: Path) -> None:
    """It takes the request whole, over gRPC and HTTP, and what is rejected behind it is in its log alone."""
    success = service.ExportMetricsPartialSuccess(rejected_data_points=3, error_message="too new")
    answer = service.ExportMetricsServiceResponse(partial_success=success).SerializeToString().decode()
    response, log = (
        Response(headers={"Content-Type": "application/x-protobuf"}, text=answer),
        tmp_path / "collector.log",
    )
    ports = {"grpc": free_port(), "http/protobuf": free_port()}
    with http_server(lambda _: response) as server:
        (tmp_path / "collector.yaml").write_text(f"""
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{ports["grpc"]}"}},
  http: {{endpoint: "127.0.0.1:{ports["http/protobuf"]}"}}}}}}}}
exporters: {{otlphttp: {{endpoint: "http://127.0.0.1:{server.server_port}"}}}}
service: {{telemetry: {{metrics: {{level: none}}}},
  pipelines: {{metrics: {{receivers: [otlp], exporters: [otlphttp]}}}}}}
""")
        command = [str(programs.collector()), f"--config={tmp_path}/collector.yaml"]
        with running_process(command, log, clean_environment()):
            wait_until(lambda: "Everything is ready" in log.read_text(), 60, "the collector's start", log=log)
            for count, (protocol, port) in enumerate(ports.items(), start=1):
                variables = {"ENDPOINT": f"http://127.0.0.1:{port}", "PROTOCOL": protocol}
                exporter = Exporter(Endpoint.read({f"OTEL_EXPORTER_OTLP_{name}": v for name, v in variables.items()}))
                assert exporter.send(step_request(1).SerializeToString()) == TAKEN
                assert (exporter.clock_offset is not None) == (protocol == "http/protobuf"), "gRPC has no date"
                wait_until(partial(is_logged, log, count), log=log)
