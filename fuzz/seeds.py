"""Make the corpus's seeds anew: real requests, a real ring, the shipped configurations, a real `.wandb` file.

Run it as `python -m fuzz.seeds`, for instance when the format of a ring has changed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from fuzz import CORPUS
from fuzz.targets.ring_content import RECORDS, build
from otel_train.bridge import BridgeConfig, wandb_files
from otel_train.bridge.wandb_file import FILE_HEADER
from otel_train.catalogue import Metric, Reduction, rows
from otel_train.ring import Identity, Kind, RingReader, RingWriter, Schema
from otel_train.ring.file_format import CURSOR_OFFSET, PROGRESS, PROGRESS_OFFSET
from otel_train.ring.schema import dump_key
from otel_train.trainer import shipped_configs
from tests.support.running_bridge import RunningBridge
from tests.support.step_requests import step_request

Seed = tuple[str, bytes]


def otlp() -> Iterator[Seed]:
    """Give requests with each kind of point."""
    step = step_request
    counters = {rows.PICKS.name: 3, f"{rows.TOKENS.name}|code": 2}
    yield "gauges", step(1, {"loss": 0.5, "train/lr": 1}).SerializeToString()
    yield "counters", step(2, {}, counters, counted=False).SerializeToString()
    yield "histogram", step(3, {}, histogram=rows.REUSE_DISTANCE.name).SerializeToString()


def otlp_json() -> Iterator[Seed]:
    """Give the same requests as JSON."""
    for name, data in otlp():
        request = ExportMetricsServiceRequest.FromString(data)
        yield name, MessageToJson(request, indent=None).encode()


def rings() -> Iterator[tuple[str, RingWriter]]:
    """Give a ring of user's scalars and one of catalogue rows, full and then some, and one with late keys."""
    schemas = {
        "scalars": Schema((Metric("loss", unit="1"), Metric("gain", Reduction.MAX), Metric("n", Reduction.SUM))),
        "catalogue": Schema((rows.PICKS, rows.TOKENS, rows.MODALITY_SHARE, rows.REUSE_DISTANCE), ("code",)),
    }
    for name, schema in schemas.items():
        with TemporaryDirectory() as folder:
            identity = Identity(run_id="run", attempt=5)
            ring = RingWriter(Path(folder) / "x.ring", schema, identity, records=RECORDS)
            for step in range(RECORDS):
                ring.write(step, 1000 + step, (Kind.RANK, Kind.CLUSTER)[step % 2], [1.0] * ring.geometry.values)
            yield name, ring
            late = [(ring.add_key(Metric(f"late/{index}")) or 0, 1.0, 1.0) for index in range(2)]
            ring.write(5, 2000, Kind.CLUSTER, [1.0] * ring.geometry.values, late[:1])
            ring.write(5, 2001, Kind.BOTH, (), late, logged=True)
            yield f"late-{name}", ring


def ring() -> Iterator[Seed]:
    """Give whole ring files."""
    for name, made in rings():
        yield name, made.path.read_bytes()


def ring_content() -> Iterator[Seed]:
    """Give the parts of ring files, and see that the same files can be made of them."""
    for name, made in rings():
        geometry, file = made.geometry, made.path.read_bytes()
        parts = [(PROGRESS_OFFSET, PROGRESS.size)]
        parts += [(CURSOR_OFFSET + index * geometry.slot_size, geometry.slot_struct.size) for index in range(2)]
        parts += [(geometry.offset(index), geometry.record_struct.size) for index in range(RECORDS)]
        schema = file[geometry.schema_offset : geometry.schema_offset + geometry.schema_size]
        keys = [dump_key(key) for key in RingReader(made.path).late_keys]
        content = b"".join(file[offset : offset + size] for offset, size in parts) + b"\n".join(keys)
        assert build(schema, content)[geometry.header_size :] == file[geometry.header_size :]
        yield name, schema + b"\0" + content


def job_toml() -> Iterator[Seed]:
    """Give the shipped configurations without their comments."""
    for name, path in shipped_configs().items():
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        yield name, "\n".join(lines).encode()


def _wandb_run() -> bytes:
    with TemporaryDirectory() as folder:
        running = RunningBridge(BridgeConfig(state=Path(folder), listen="127.0.0.1:0", linger=0))
        running.send(step_request(1, {"loss": 0.5}, {rows.PICKS.name: 3}))
        running.wait(1)
        running.stop()
        (path,) = wandb_files(folder, "run")
        return path.read_bytes()


def wandb_file() -> Iterator[Seed]:
    """Give the transaction log of a run of one step."""
    yield "run", _wandb_run()


def wandb_record() -> Iterator[Seed]:
    """Give the record of the step's row, and a row's items as the target takes them."""
    data, offset = _wandb_run(), len(FILE_HEADER)
    while offset < len(data):
        _, length, _ = struct.unpack_from("<IHB", data, offset)
        offset += 7
        record = import_module("wandb.proto.wandb_internal_pb2").Record.FromString(data[offset : offset + length])
        if record.WhichOneof("record_type") == "history":
            yield "history", data[offset : offset + length]
            items = [(item.key or ".".join(item.nested_key), item.value_json) for item in record.history.item]
            yield "items", "".join(f"{key}\0{value}\0" for key, value in items).encode()
        offset += length


def main() -> None:
    """Write all seeds; what else is in the corpus stays."""
    for target in (job_toml, otlp, otlp_json, ring, ring_content, wandb_file, wandb_record):
        folder = CORPUS / target.__name__
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in target():
            (folder / f"seed-{name}").write_bytes(data)
            print(f"{folder.name}/seed-{name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
