#!/usr/bin/env bash
# opentelemetry-exporter-otlp-proto-http 1.45.2 (Python): a receiver that answers with partial_success, because it
# rejected points for good, is reported as SUCCESS, and nothing is logged, at any level.
#
# OTLP's specification asks clients to record the rejection ("the client MUST NOT retry", "SHOULD log the error_message"):
# whoever counts delivered points by the exporter's result counts rejected ones as delivered. Go's and Rust's exporters warn.
#
# Seen: result SUCCESS, log records []
# Exits 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2
cat >"$work/try.py" <<'PYTHON'
import http.server
import logging
import threading

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.sdk.metrics.export import Gauge, Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope


class Rejecting(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = ExportMetricsServiceResponse()
        answer.partial_success.rejected_data_points = 1
        answer.partial_success.error_message = "too old"
        body = answer.SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Kept(logging.Handler):
    records = []

    def emit(self, record):
        if record.name.startswith("opentelemetry"):
            self.records.append(record.getMessage())


logging.basicConfig(level=logging.DEBUG, handlers=[Kept()])
server = http.server.HTTPServer(("127.0.0.1", 0), Rejecting)
threading.Thread(target=server.serve_forever, daemon=True).start()
point = NumberDataPoint(attributes={}, start_time_unix_nano=0, time_unix_nano=1, value=1.0)
metric = Metric(name="loss", description="", unit="", data=Gauge(data_points=[point]))
scope = ScopeMetrics(scope=InstrumentationScope("try"), metrics=[metric], schema_url="")
data = MetricsData(resource_metrics=[ResourceMetrics(resource=Resource.create(), scope_metrics=[scope], schema_url="")])
result = OTLPMetricExporter(endpoint=f"http://127.0.0.1:{server.server_port}/v1/metrics").export(data)
print(f"result {result.name}, log records {Kept.records}")
PYTHON
seen=$("$work/venv/bin/python" "$work/try.py")
echo "$seen"
[ "$seen" = "result SUCCESS, log records []" ]
