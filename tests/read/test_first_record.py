"""Where a dump of a run's end begins to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_train.catalogue import Metric
from otel_train.read.dump import Dump, Row, Selection
from otel_train.read.row_texts import rfc3339
from otel_train.ring import Kind, RingReader, RingWriter, ring_files, ring_path
from otel_train.ring.columns import RingColumns
from tests.support.written_rings import IDENTITY, SCHEMA

TIME = 10
"""Nanoseconds between two steps."""
EVENTS = st.sampled_from(["step", "step", "step", "reduced", "logged", "logged ahead", "torn"])

NUMBERS = st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.5, math.nan, math.inf, -math.inf, 1e300]), min_size=1, max_size=5)


def rows(directory: Path, selection: Selection) -> list[Row]:
    """Return a dump's rows."""
    dump = Dump(directory, selection)
    try:
        return list(dump.rows())
    finally:
        dump.close()


def records(directory: Path) -> list[Row]:
    """Return the same rows of the whole ring, read record by record."""
    [path] = ring_files(directory)
    reader = RingReader(path)
    identity: Row = {"run": IDENTITY.run_id, "attempt": IDENTITY.attempt, "rank": 0}
    return [
        {
            **identity,
            "kind": record.kind.name.lower() + "_logged" * record.logged,
            "step": record.step,
            "time": rfc3339(record.time_ns),
            "time_ns": record.time_ns,
            **record.by_key(),
        }
        for record in reader.read(0, 1_000)[0]
    ]


def a_ring(directory: Path, records: int) -> RingWriter:
    """Return an empty ring."""
    identity = replace(IDENTITY, rank=0)
    return RingWriter(ring_path(directory, identity), SCHEMA, identity, records=records)


def write(directory: Path, events: list[str], numbers: Sequence[float]) -> None:
    """Write a ring of 24 records in which the cluster's are late, some are logged beside the steps, and some torn."""
    ring = a_ring(directory, 24)
    late = ring.add_key(Metric("eval/loss"))
    assert late is not None
    step, reduced, torn = 0, 0, []
    for number, event in zip(cycle(numbers), events, strict=False):
        if event == "step":
            step += 1
            values = [number] * ring.geometry.values
            ring.write(step, TIME * step, Kind.RANK, values, [(late, 1.0, 1.0)] * (step % 2))
        elif event == "reduced" and reduced < step:
            reduced = max(reduced + 1, step - 2)
            ring.write(reduced, TIME * reduced, Kind.CLUSTER, [number] * ring.geometry.values)
        elif event.startswith("logged"):
            ring.write(step + 7 * ("ahead" in event), TIME * step, Kind.RANK, (), [(late, 2.0, 1.0)], logged=True)
        elif event == "torn":
            torn.append(max(0, ring.written - 1))
    with ring.path.open("r+b") as file:
        for sequence in torn:
            file.seek(ring.geometry.offset(sequence))
            file.write(b"\xff" * 8)


@example(events=["step", "logged ahead", "step", "step", "step"], last=1, of_time=False, numbers=[1.0])
@example(events=["step", "step", "step", "reduced", "step", "step", "step"], last=3, of_time=False, numbers=[1.0])
@example(events=["step", "step"], last=0, of_time=False, numbers=[-math.inf])
@given(events=st.lists(EVENTS, min_size=1, max_size=30), last=st.integers(0, 9), of_time=st.booleans(), numbers=NUMBERS)
def test_bisection_loses_no_record(events: list[str], last: int, of_time: bool, numbers: list[float]) -> None:
    """A part of a run is what a reading of the whole run has of it, whatever the order of its records."""
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        write(directory, events, numbers)
        first = events.count("step") - last
        selection = Selection(since_ns=TIME * last) if of_time else Selection(since_step=first)
        number, since = ("time_ns", TIME * first) if of_time else ("step", first)
        expected = [row for row in records(directory) if int(row[number]) >= since]
        assert list(map(str, rows(directory, selection))) == list(map(str, expected))


def test_end_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last steps of a long run are had without reading those before them."""
    ring = a_ring(tmp_path, 20_000)
    for step in range(1, 10_001):
        for kind in (Kind.RANK, Kind.CLUSTER):
            ring.write(step, TIME * step, kind, [1.0] * ring.geometry.values)
    looked_at: list[int] = []
    stored = RingReader._stored

    def counted(reader: RingReader, sequence: int) -> object:
        looked_at.append(sequence)
        return stored(reader, sequence)

    monkeypatch.setattr(RingReader, "_stored", counted)
    assert len(rows(tmp_path, Selection(since_step=9_951))) == 100
    assert len(looked_at) < 200


def test_overwritten_rows_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that goes on writes over records that are read at that moment: they are counted, and no row is mixed."""
    ring = a_ring(tmp_path, 40)
    for step in range(1, 11):
        ring.write(step, TIME * step, Kind.RANK, [float(step)] * ring.geometry.values)
    columns = RingColumns.columns

    def late(*arguments: Any) -> Any:
        for step in range(11, 46):
            ring.write(step, TIME * step, Kind.RANK, [float(step)] * ring.geometry.values)
        return columns(*arguments)

    monkeypatch.setattr(RingColumns, "columns", late)
    dump = Dump(tmp_path)
    dumped = list(dump.rows())
    assert [(row["step"], row["peak"]) for row in dumped] == [(step, float(step)) for step in range(6, 11)]
    assert dump.torn == 5
    dump.close()


def test_full_ring_is_read_whole(tmp_path: Path) -> None:
    """Of a ring that went round, records that may be overwritten soon are read alone, and join those read at once."""
    ring = a_ring(tmp_path, 400)
    late = ring.add_key(Metric("eval/loss"))
    assert late is not None
    for step in range(1, 301):
        ring.write(step, TIME * step, Kind.RANK, [float(step)] * ring.geometry.values, [(late, 1.0, 1.0)] * (step % 2))
        ring.write(step, TIME * step, Kind.CLUSTER, [float(step)] * ring.geometry.values)
    dumped = rows(tmp_path, Selection())
    assert len(dumped) > 200
    assert dumped == records(tmp_path)
