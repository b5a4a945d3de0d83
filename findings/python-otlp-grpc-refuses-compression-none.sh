#!/usr/bin/env bash
# opentelemetry-exporter-otlp-proto-grpc 1.45.2 (Python): OTEL_EXPORTER_OTLP_COMPRESSION=none raises when the exporter is
# made. The specification names the value ("a value of none SHOULD be supported"), and the HTTP exporter of the same release
# takes it: a variable that is set for all of a cluster's jobs ends those that speak gRPC.
#
# Seen: gRPC InvalidCompressionValueException, HTTP NONE
# Exits 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check opentelemetry-sdk==1.45.2 requests \
    opentelemetry-exporter-otlp-proto-grpc==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2
cat >"$work/try.py" <<'PYTHON'
import os

os.environ["OTEL_EXPORTER_OTLP_COMPRESSION"] = "none"

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

try:
    GrpcExporter()
    grpc = "taken"
except Exception as error:
    grpc = type(error).__name__
print("gRPC", grpc + ", HTTP", HttpExporter()._compression.name)
PYTHON
output=$("$work/venv/bin/python" "$work/try.py")
echo "$output"
[ "$output" = "gRPC InvalidCompressionValueException, HTTP NONE" ]
