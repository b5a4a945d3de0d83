"""An OTLP request as it comes over the wire, up to the rows that wandb gets and the answer to the sender."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
)

from otel_train.bridge.decode import Decoded, decode
from otel_train.bridge.inbox import Inbox
from otel_train.bridge.row_order import Due
from otel_train.bridge.safe_names import display_name, safe_id

DUE = Due(settle_ns=0, linger_ns=0)
SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")


def run(data: bytes) -> None:
    """Take a request as the bridge does; one that is not protobuf is gRPC's to refuse."""
    try:
        request = ExportMetricsServiceRequest.FromString(data)
    except DecodeError:
        return
    decoded = decode(request)
    ExportMetricsPartialSuccess(rejected_data_points=decoded.rejected, error_message=decoded.reason).SerializeToString()
    if decoded.points:
        _make_rows(decoded)


def _make_rows(decoded: Decoded) -> None:
    with TemporaryDirectory() as folder, Inbox(Path(folder) / "state") as inbox:
        inbox.add(decoded.points, 1)
        inbox.add(decoded.points, 2)
        for run_id in inbox.reader.run_ids():
            assert SAFE.fullmatch(safe_id(run_id))
            assert display_name(run_id).isprintable()
            pending = [step.row for step in inbox.reader.rows(run_id) if step.step is not None]  # others get no row
            while inbox.seal(run_id, DUE, 3):
                pass
            assert len(inbox.reader.rows(run_id)) == len(pending)
            for row in inbox.undelivered(run_id):
                json.dumps(row.row)
