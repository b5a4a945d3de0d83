"""Record what the SDKs of Java and Rust, and telemetrygen, send: `make sdk-requests`.

It builds them, which takes minutes, has each send the same steps, and keeps the requests in `tests/sdks/requests`, from
where a test sends them to a bridge. The SDKs of Go and JavaScript run in the tests themselves.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from tests.support.environment import clean_environment
from tests.support.sdk_senders import Sender, telemetrygen
from tests.support.sdk_steps import STEPS, refused_step, step

REQUESTS = Path(__file__).with_name("requests")
EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
CASES = [
    ("java", "grpc", "none", "delta"),
    ("java", "http/protobuf", "gzip", "cumulative"),
    ("rust", "grpc", "gzip", "cumulative"),
    ("rust", "http/json", "none", "delta"),
    ("rust", "http/protobuf", "gzip", "cumulative"),
]
PARTIAL = ExportMetricsServiceResponse()
PARTIAL.partial_success.rejected_data_points = 1
PARTIAL.partial_success.error_message = "a name is longer than 512 characters"


class Recorder:
    """Receivers over gRPC and HTTP that keep what they get."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer = ExportMetricsServiceResponse()

    def take(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Keep a request as it came."""
        kept = {name: headers[name] for name in ("content-type", "content-encoding", "user-agent") if name in headers}
        self.requests.append({"headers": kept, "body": base64.b64encode(body).decode()})

    @contextmanager
    def serving(self, protocol: str) -> Iterator[str]:
        """Serve during the block, and give the endpoint."""
        if protocol == "grpc":
            with ThreadPoolExecutor(1) as pool:
                server = grpc.server(pool)
                handler = grpc.unary_unary_rpc_method_handler(self._export)
                service, _, method = EXPORT[1:].partition("/")
                server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
                port = server.add_insecure_port("127.0.0.1:0")
                server.start()
                yield f"http://127.0.0.1:{port}"
                server.stop(1).wait()
            return
        recorder = self

        class Handler(_Handler):
            owner = recorder

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as over_http:
            threading.Thread(target=over_http.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{over_http.server_port}"
            over_http.shutdown()

    def _export(self, request: bytes, context: Any) -> bytes:
        self.take(request, {key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
        answer: bytes = self.answer.SerializeToString()
        return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Recorder

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.owner.take(body, headers)
        is_json = headers["content-type"] == "application/json"
        partial = {"partialSuccess": {"rejectedDataPoints": "1", "errorMessage": PARTIAL.partial_success.error_message}}
        text = json.dumps(partial if self.owner.answer.HasField("partial_success") else {}).encode()
        answer = text if is_json else self.owner.answer.SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", headers["content-type"])
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, *_: object) -> None:
        pass


def record(language: str, protocol: str, compression: str, temporality: str) -> dict[str, Any]:
    """Have one SDK send the steps, and return its requests and what it says of a partial success."""
    recorder = Recorder()
    run_id = f"{language}-{protocol}"
    with recorder.serving(protocol) as endpoint:
        sender = Sender(
            language,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_COMPRESSION=compression,
            OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=temporality,
            OTEL_RESOURCE_ATTRIBUTES=f"train.run.id={run_id},train.attempt=1,train.rank=0",
        )
        said = [sender.send(step(number)) for number in range(1, STEPS + 1)]
        assert said == [""] * STEPS, said
        sender.finish()  # it sends its last values once more
        taken = list(recorder.requests)
    recorder.answer = PARTIAL
    with recorder.serving(protocol) as endpoint:
        sender = Sender(language, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
        partial = sender.send(refused_step(1))
        sender.stop()
    return {"run": run_id, "protocol": protocol, "says_of_partial_success": partial, "requests": taken}


def record_telemetrygen(protocol: str) -> dict[str, Any]:
    """Have telemetrygen send a gauge three times, and return its requests."""
    recorder = Recorder()
    run_id = f"telemetrygen-{protocol}"
    with recorder.serving(protocol) as endpoint:
        command = [telemetrygen(), "metrics", "--metrics=3", "--rate=0", "--batch=false", "--otlp-insecure"]
        command += [f"--otlp-endpoint={endpoint.removeprefix('http://')}", "--otlp-metric-name=train.step"]
        command += [f'--otlp-attributes=train.run.id="{run_id}"', "--otlp-attributes=train.attempt=1"]
        command += ["--otlp-http"] if protocol != "grpc" else []
        subprocess.run(command, check=True, env=clean_environment(), capture_output=True)
    return {"run": run_id, "protocol": protocol, "says_of_partial_success": "", "requests": recorder.requests}


def main() -> None:
    """Record all cases."""
    REQUESTS.mkdir(exist_ok=True)
    recorded = [record(*case) for case in CASES]
    recorded += [record_telemetrygen(protocol) for protocol in ("grpc", "http/protobuf")]
    for case in recorded:
        path = REQUESTS / f"{case['run'].replace('/', '-')}.json"
        path.write_text(json.dumps(case, indent=1) + "\n")
        print(f"{path.name}: {len(case['requests'])} requests; of partial success: {case['says_of_partial_success']!r}")


if __name__ == "__main__":
    main()
