#!/usr/bin/env bash
# opentelemetry-exporter-otlp-proto-grpc 1.45.2 (Python): OTEL_EXPORTER_OTLP_INSECURE=false makes an endpoint that begins
# with http:// speak TLS. OTLP's specification says that the option holds only for endpoints without a scheme, and that
# http:// means no TLS: with a collector that listens in plain text nothing arrives, and the message is UNAVAILABLE.
#
# Seen: the first bytes of the connection: without the variable b'PRI', with INSECURE=false b'\x16\x03\x01' (a TLS hello).
# Exits 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-grpc==1.45.2
cat >"$work/try.py" <<'PYTHON'
import logging
import os
import socket
import threading

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricsData

logging.disable()


def first_bytes(insecure):
    os.environ.pop("OTEL_EXPORTER_OTLP_INSECURE", None)
    if insecure is not None:
        os.environ["OTEL_EXPORTER_OTLP_INSECURE"] = insecure
    listener = socket.create_server(("127.0.0.1", 0))
    exporter = OTLPMetricExporter(endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=2)
    data = MetricsData(resource_metrics=[])
    threading.Thread(target=exporter.export, args=(data,), daemon=True).start()
    connection, _ = listener.accept()
    return connection.recv(3)


print(f"without {first_bytes(None)}, false {first_bytes('false')}", flush=True)
os._exit(0)
PYTHON
seen=$("$work/venv/bin/python" "$work/try.py")
echo "$seen"
[ "$seen" = "without b'PRI', false b'\\x16\\x03\\x01'" ]
