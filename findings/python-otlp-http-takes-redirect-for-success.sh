#!/usr/bin/env bash
# opentelemetry-exporter-otlp-proto-http 1.45.2 (Python): an answer of 301 or 302 is SUCCESS, though nobody follows it and
# the points are nowhere. OTLP's specification: success is 200, and "all other HTTP responses with 4xx or 5xx" are failures;
# a redirect (http:// to https://, a path without its last slash, a login page) loses everything without a word.
#
# Seen: 301 SUCCESS after 1 request(s), log records []
# Exits 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check requests \
    opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2
cat >"$work/try.py" <<'PYTHON'
import http.server
import logging
import threading

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricsData

requests, records = [], []


class Redirecting(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        requests.append(self.path)
        self.send_response(301)
        self.send_header("Location", f"http://127.0.0.1:{server.server_port}/other")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Keep(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())


logging.getLogger("opentelemetry").addHandler(Keep())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
threading.Thread(target=server.serve_forever, daemon=True).start()
result = OTLPMetricExporter(f"http://127.0.0.1:{server.server_port}/v1/metrics").export(MetricsData([]))
print("301", result.name, "after", len(requests), "request(s), log records", records)
PYTHON
output=$("$work/venv/bin/python" "$work/try.py")
echo "$output"
[ "$output" = "301 SUCCESS after 1 request(s), log records []" ]
