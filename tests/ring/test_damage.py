"""What a ring refuses: files that are none, headers that claim too much, schemas that don't go together."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_train.catalogue import Metric
from otel_train.exceptions import RingError
from otel_train.ring import Identity, Kind, RingReader, RingWriter, Schema, ring_path, writer
from otel_train.ring.file_format import PROGRESS_OFFSET, Geometry, pack_header

IDENTITY = Identity(run_id="run", attempt=5)
SCHEMA = Schema((Metric("loss"),))
WHOLE: dict[str, Any] = {"identity": asdict(IDENTITY), "modalities": [], "metrics": [["loss", "1", "gauge", "mean"]]}


def test_existing_ring_is_not_replaced(tmp_path: Path) -> None:
    """Its records may not have been sent yet."""
    path = ring_path(tmp_path, IDENTITY)
    ring = RingWriter(path, SCHEMA, IDENTITY, records=4)
    ring.write(1, 1, Kind.RANK, [1.0] * ring.geometry.values)
    with pytest.raises(RingError, match="it exists"):
        RingWriter(path, SCHEMA, IDENTITY, records=4)
    assert RingReader(path).progress.written == 1


@pytest.mark.parametrize(
    "schema",
    [
        {**WHOLE, "metrics": WHOLE["metrics"] * 2},
        {**WHOLE, "metrics": [["loss", "1", "gauge", "divergence"]]},
        {**WHOLE, "metrics": [["ledger.hits", "1", "gauge", "max"]]},
        {**WHOLE, "metrics": [["loss", "1", "gauge"]]},
        {**WHOLE, "identity": {**asdict(IDENTITY), "host": ["here"]}},
        {**WHOLE, "identity": {**asdict(IDENTITY), "rank": "0"}},
        {**WHOLE, "identity": {**asdict(IDENTITY), "rank": -1}},
        {**WHOLE, "identity": {**asdict(IDENTITY), "attempt": 2**63}},
        {**WHOLE, "identity": {**asdict(IDENTITY), "run_id": "\udcff"}},
        {**WHOLE, "metrics": [["loss", {}, "gauge", "mean"]]},
        {**WHOLE, "metrics": [["loss", "1", "gauge", "share"]]},
        {**WHOLE, "modalities": ["m" * 2**19]},
        {**WHOLE, "modalities": [1]},
        {**WHOLE, "metrics": [["loss", "1", "histogram", "sum"]]},
        b"[" * 200_000,
        b"1" * 200_000,
    ],
    ids=[
        *("twice", "no measures", "another row", "too short", "host", "rank", "negative rank", "attempt", "run id"),
        *("unit", "share", "modality", "number as modality", "histogram"),
        *("nested", "digits"),
    ],
)
def test_invalid_schema_is_ring_error(schema: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its check value fits: the sidecar must be able to leave the file and go on."""
    encoded = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    monkeypatch.setattr(writer, "dump_schema", lambda *_: encoded)
    RingWriter(tmp_path / "x.ring", SCHEMA, IDENTITY, records=4)
    with pytest.raises(RingError, match=r"its schema can't be read|its metrics don't go together"):
        RingReader(tmp_path / "x.ring")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.binary(max_size=120).map(lambda tail: b"OTELTRN1\1\0\0\0" + tail)))
def test_random_bytes_are_ring_error(content: bytes, tmp_path: Path) -> None:
    """Random bytes, with and without the right beginning."""
    path = tmp_path / "x.ring"
    path.write_bytes(content)
    with pytest.raises(RingError):
        RingReader(path)


@pytest.mark.parametrize(
    "claimed",
    [Geometry(2**27, 2, 4, 100), Geometry(2, 2**26, 4, 100), Geometry(2, 2, 2**30, 100), Geometry(2, 2, 4, 2**30)],
    ids=["record", "cursor", "records", "schema"],
)
def test_implausible_sizes_are_ring_error(claimed: Geometry, tmp_path: Path) -> None:
    """The file, all holes, has that size; nothing of it is read."""
    path = tmp_path / "x.ring"
    with path.open("wb") as file:
        file.write(pack_header(claimed, 1, 0, 0, 0))
        file.truncate(claimed.file_size)
    with pytest.raises(RingError, match="the sizes in its header"):
        RingReader(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_special_file_is_ring_error(make: Callable[[Path], None], tmp_path: Path) -> None:
    """A pipe is not waited for."""
    make(tmp_path / "x.ring")
    with pytest.raises(RingError):
        RingReader(tmp_path / "x.ring")


def test_implausible_count_is_ring_error(tmp_path: Path) -> None:
    """What a sidecar would count as lost has no place in its cursor or in a counter."""
    ring = written(tmp_path, 1)
    claim_written(ring, 2**60)
    with pytest.raises(RingError, match="is damaged"):
        RingReader(ring.path).read(0, 10)


def test_implausible_cursor_is_ignored(tmp_path: Path) -> None:
    """Its check value is right, but the next one could not be written."""
    reader = RingReader(written(tmp_path, 1).path, writable=True)
    reader.move_cursor(reader.cursor._replace(position=1))
    reader.move_cursor(reader.cursor._replace(dropped=2**60))
    assert (reader.cursor.position, reader.cursor.dropped) == (1, 0)


def written(directory: Path, steps: int) -> RingWriter:
    """Return a ring of eight records with that many written."""
    ring = RingWriter(ring_path(directory, IDENTITY), SCHEMA, IDENTITY, records=8)
    for step in range(1, steps + 1):
        ring.write(step, step, Kind.RANK, [float(step)] * ring.geometry.values)
    return ring


def claim_written(ring: RingWriter, count: int) -> None:
    """Have a ring say that so many records are written."""
    ring._file[PROGRESS_OFFSET : PROGRESS_OFFSET + 8] = count.to_bytes(8, "little")


def test_late_reader_starts_at_oldest(tmp_path: Path) -> None:
    """Its limit is spent on records, not on those that are gone."""
    records, position, lost = RingReader(written(tmp_path, 20).path).read(0, 3)
    assert ([each.step for each in records], position, lost) == ([13, 14, 15], 15, 12)


def test_record_being_overwritten_is_lost(tmp_path: Path) -> None:
    """The writer has put step 9 into the place of step 1, and not yet said so."""
    ring = written(tmp_path, 9)
    claim_written(ring, 8)
    records, position, lost = RingReader(ring.path).read(0, 100)
    assert ([each.step for each in records], position, lost) == ([2, 3, 4, 5, 6, 7, 8], 8, 1)


def test_blocks_are_allocated_at_creation(tmp_path: Path) -> None:
    """A file with holes would end the job with SIGBUS when the disk is full."""
    found = written(tmp_path, 0).path.stat()
    assert found.st_blocks * 512 >= found.st_size


def test_damaged_ring_leaves_nothing_open(tmp_path: Path) -> None:
    """Neither a descriptor nor a warning of one."""
    path = ring_path(tmp_path, IDENTITY)
    path.write_bytes(b"OTELTRN1" + bytes(1000))
    gc.collect()  # what tests before this one left
    before = len(list(Path("/proc/self/fd").iterdir()))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with contextlib.suppress(RingError):
            RingReader(path)
        gc.collect()
    assert (len(list(Path("/proc/self/fd").iterdir())), said) == (before, [])
