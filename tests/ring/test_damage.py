"""Damaged rings: files of another kind, headers that claim too much, schemas that don't go together."""

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
from otel_train.ring import RingReader, RingWriter, Schema, ring_path, writer
from otel_train.ring.file_format import PROGRESS_OFFSET, Geometry, pack_header
from tests.support.written_rings import IDENTITY, written_ring


def claim_written(ring: RingWriter, count: int) -> None:
    """Have a ring say that so many records are written."""
    with ring.path.open("r+b") as file:
        file.seek(PROGRESS_OFFSET)
        file.write(count.to_bytes(8, "little"))


def test_existing_ring_is_not_replaced(tmp_path: Path) -> None:
    """A ring that exists is not replaced: its records may not have been sent yet."""
    ring = written_ring(tmp_path, 1)
    with pytest.raises(RingError, match="it exists"):
        written_ring(tmp_path, 0)
    assert RingReader(ring.path).progress.written == 1


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"metrics": [["loss", "1", "gauge", "mean"]] * 2}, id="twice"),
        pytest.param({"metrics": [["loss", "1", "gauge", "divergence"]]}, id="no measures"),
        pytest.param({"metrics": [["ledger.hits", "1", "gauge", "max"]]}, id="another row"),
        pytest.param({"metrics": [["loss", "1", "gauge"]]}, id="too short"),
        pytest.param({"identity": asdict(IDENTITY) | {"host": ["here"]}}, id="host"),
        pytest.param({"identity": asdict(IDENTITY) | {"rank": "0"}}, id="rank"),
        pytest.param({"identity": asdict(IDENTITY) | {"rank": -1}}, id="negative rank"),
        pytest.param({"identity": asdict(IDENTITY) | {"attempt": 2**63}}, id="attempt"),
        pytest.param({"identity": asdict(IDENTITY) | {"run_id": "\udcff"}}, id="run id"),
        pytest.param({"metrics": [["loss", {}, "gauge", "mean"]]}, id="unit"),
        pytest.param({"metrics": [["loss", 1, "gauge", "mean"]]}, id="number as unit"),
        pytest.param({"metrics": [["loss", "1", "gauge", "share"]]}, id="share"),
        pytest.param({"modalities": ["m" * 2**19]}, id="modality"),
        pytest.param({"modalities": [1]}, id="number as modality"),
        pytest.param({"metrics": [["loss", "1", "histogram", "sum"]]}, id="histogram"),
        pytest.param(b"[" * 200_000, id="nested"),
        pytest.param(b"1" * 200_000, id="digits"),
    ],
)
def test_invalid_schema_is_ring_error(change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema that means nothing is refused though its check value fits, so that a sidecar can go on without it."""
    valid = {"identity": asdict(IDENTITY), "modalities": [], "metrics": [["loss", "1", "gauge", "mean"]]}
    encoded = change if isinstance(change, bytes) else json.dumps(valid | change).encode()
    monkeypatch.setattr(writer, "dump_schema", lambda *_: encoded)
    RingWriter(tmp_path / "x.ring", Schema((Metric("loss"),)), IDENTITY, records=4)
    with pytest.raises(RingError, match=r"its schema can't be read|its metrics don't go together"):
        RingReader(tmp_path / "x.ring")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.binary(max_size=120).map(lambda tail: b"OTELTRN1\1\0\0\0" + tail)))
def test_random_bytes_are_ring_error(content: bytes, tmp_path: Path) -> None:
    """Random bytes are refused, with and without the right beginning."""
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
    """A header that claims a gigabyte is refused though the file, all holes, has that size."""
    path = tmp_path / "x.ring"
    with path.open("wb") as file:
        file.write(pack_header(claimed, 1, 0, 0, 0))
        file.truncate(claimed.file_size)
    with pytest.raises(RingError, match="the sizes in its header"):
        RingReader(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_special_file_is_ring_error(make: Callable[[Path], None], tmp_path: Path) -> None:
    """A pipe or a directory is refused; a pipe is not waited for."""
    make(tmp_path / "x.ring")
    with pytest.raises(RingError):
        RingReader(tmp_path / "x.ring")


def test_implausible_count_is_ring_error(tmp_path: Path) -> None:
    """A number of records that no writer reaches is refused: as a count of lost ones it would fit no counter."""
    ring = written_ring(tmp_path, 1)
    claim_written(ring, 2**60)
    with pytest.raises(RingError, match="is damaged"):
        RingReader(ring.path).read(0, 10)


def test_implausible_cursor_is_ignored(tmp_path: Path) -> None:
    """A cursor that no sidecar reaches is not taken though its check value fits: the one before it is."""
    reader = RingReader(written_ring(tmp_path, 1).path, writable=True)
    reader.move_cursor(reader.cursor._replace(position=1))
    reader.move_cursor(reader.cursor._replace(dropped=2**60))
    assert (reader.cursor.position, reader.cursor.dropped) == (1, 0)


def test_late_reader_starts_at_oldest(tmp_path: Path) -> None:
    """A reader that is far behind starts at the oldest record: its limit is not spent on those that are gone."""
    records, position, lost = RingReader(written_ring(tmp_path, 20).path).read(0, 3)
    assert ([record.step for record in records], position, lost) == ([13, 14, 15], 15, 12)


def test_record_being_overwritten_is_lost(tmp_path: Path) -> None:
    """A slot that holds a newer record than the header says counts as lost, not as the old record."""
    ring = written_ring(tmp_path, 9)
    claim_written(ring, 8)
    records, position, lost = RingReader(ring.path).read(0, 100)
    assert ([record.step for record in records], position, lost) == ([2, 3, 4, 5, 6, 7, 8], 8, 1)


def test_blocks_are_allocated_at_creation(tmp_path: Path) -> None:
    """The blocks of a ring are allocated when it is made: a hole would end the job with SIGBUS on a full disk."""
    status = written_ring(tmp_path, 0).path.stat()
    assert status.st_blocks * 512 >= status.st_size


def test_damaged_ring_leaves_nothing_open(tmp_path: Path) -> None:
    """A damaged ring leaves no descriptor open, and no warning of one."""
    path = ring_path(tmp_path, IDENTITY)
    path.write_bytes(b"OTELTRN1" + bytes(1000))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with contextlib.suppress(RingError):
            RingReader(path)
        gc.collect()
    opened = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            opened.append(descriptor.readlink())
    assert (path in opened, [text for text in map(str, warned) if str(path) in text]) == (False, [])
