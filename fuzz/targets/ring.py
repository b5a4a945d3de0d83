"""A ring file, read and followed by a sidecar up to the request that it would send."""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics

from otel_train.bridge.collection_times import data_points
from otel_train.catalogue import Phase
from otel_train.diagnose.capacity import advise
from otel_train.diagnose.examine import examine
from otel_train.exceptions import OtelTrainError
from otel_train.read import RingJob
from otel_train.ring import RingReader
from otel_train.sidecar.feed import RingFeed
from otel_train.sidecar.points import Origin, PointBuilder, resource_of

LIMIT = 64
ROUNDS = 4


def run(data: bytes) -> None:
    """Read the file as a ring; all that a reader may say is that it is not one."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.ring"
        path.write_bytes(data)
        try:
            reader = RingReader(path)
            _send_ones(reader)
            _read(reader)
            _follow(path)
            _examine(path.parent)
        except OtelTrainError:
            return


def _read(reader: RingReader) -> None:
    assert reader.cursor.position >= 0
    assert isinstance(reader.writer_lives, bool)
    assert reader.phase[0] is None or reader.phase[0] in Phase
    position = 0
    for _ in range(ROUNDS):
        records, end, lost = reader.read(position, LIMIT)
        assert len(records) <= LIMIT
        assert (lost >= 0, end >= position) == (True, True)
        position = end


def _send_ones(reader: RingReader) -> None:
    """Encode a step that counts 1 of each: names and identity can be sent, or the file should have been refused."""
    layout = reader.layout
    builder = PointBuilder(Origin(reader.identity, reader.base_layout))
    values = [1.0] * (layout.sums + 2 * layout.peaks)
    builder.add_cluster(1, 1, values, [1.0] * reader.geometry.totals, layout=layout)
    sent = _encode(builder)
    # The SDK leaves out an attribute that it can't encode: what a rank says would be taken for rank 0's.
    assert len(sent.resource.attributes) == len(resource_of(reader.identity).attributes)
    points = [point for metric in sent.scope_metrics[0].metrics for point in data_points(metric)]
    assert len(points) == builder.points
    # A text that a template was cut in would leave something else.
    assert all(point.time_unix_nano == 1 for point in points)


def _examine(directory: Path) -> None:
    """Look at it as a person would: whatever it claims, there is an answer."""
    job = RingJob(directory)
    try:
        assert examine(job.history, job=job, now_ns=1)
        advise(job.history)
    finally:
        job.close()


def _follow(path: Path) -> None:
    try:
        feed = RingFeed(path, 0.0)
        for _ in range(ROUNDS):
            batch = feed.next()
            if batch is None:
                return
            if batch.metrics is not None:
                _encode(batch.metrics)
            feed.commit(batch)
    except (ArithmeticError, ValueError, struct.error):
        return  # a value that has no place in the protocol: the sidecar leaves the ring out


def _encode(builder: PointBuilder) -> Any:
    message = ResourceMetrics()
    builder.write(message)
    return ResourceMetrics.FromString(message.SerializeToString())
