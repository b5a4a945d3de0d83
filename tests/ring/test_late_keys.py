"""Keys that come after a ring's schema, and values that were logged beside the steps."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_train.catalogue import Instrument, Metric, Reduction, rows
from otel_train.exceptions import RingError
from otel_train.ring import MOST_LATE_KEYS, Kind, LateValue, Record, RingReader, RingWriter, Schema, ring_path
from otel_train.ring.file_format import KEY_ROW, KEY_TABLE_SIZE
from tests.support.written_rings import IDENTITY, SCHEMA

NARROW = Schema((Metric("train/loss"),))
"""A record of it has less room than one late value takes."""


def make(directory: Path, records: int = 64, schema: Schema = SCHEMA) -> RingWriter:
    return RingWriter(ring_path(directory, IDENTITY), schema, IDENTITY, records=records)


def write(ring: RingWriter, step: int, late: list[LateValue], *, logged: bool = False, kind: Kind = Kind.RANK) -> None:
    """Write a record whose own values all are its step."""
    ring.write(step, 10 * step, kind, [float(step)] * ring.geometry.values, late, logged=logged)


def late_of(record: Record) -> dict[str, float]:
    """Return the values that a record has of the keys that are not in the schema."""
    return {key: value for key, value in record.by_key().items() if key.startswith("late/")}


def keys_of(ring: RingWriter, count: int) -> list[int]:
    indices = [ring.add_key(Metric(f"late/{number}")) for number in range(count)]
    return [index for index in indices if index is not None]


@pytest.mark.parametrize("schema", [SCHEMA, NARROW], ids=["wide", "narrow"])
def test_late_value_is_read_back(schema: Schema, tmp_path: Path) -> None:
    """A record gives the late values that it was written with, and none for the keys that it has no value of."""
    ring = make(tmp_path, schema=schema)
    reader = RingReader(ring.path)
    write(ring, 1, [])
    first, second = keys_of(ring, 2)
    write(ring, 2, [(second, 6.0, 4.0), (first, math.nan, 1.0)])
    write(ring, 3, [(first, 1.0, 2.0)])
    records, position, lost = reader.read(0, 100)
    assert (position, lost) == (ring.written, 0)
    assert [late_of(record).get("late/1") for record in records] == [None, 1.5, None]
    assert math.isnan(late_of(records[1])["late/0"])
    assert late_of(records[2]) == {"late/0": 0.5}
    assert {"train/loss": 1.0}.items() <= records[2].by_key().items()
    assert records[2].layout is reader.layout


def test_both_and_norms_have_late_values(tmp_path: Path) -> None:
    """A lone rank's record is two, each with the late values, one with the peaks' ranks; a norm is a mean's root."""
    ring = make(tmp_path)
    index = ring.add_key(Metric("late/norm", Reduction.NORM))
    assert index == ring.add_key(Metric("late/norm", Reduction.NORM)) == 0
    write(ring, 4, [(index, 18.0, 2.0)], kind=Kind.BOTH)
    records, _, _ = RingReader(ring.path).read(0, 1)
    assert [(record.kind, record.ordinal, late_of(record)) for record in records] == [
        (Kind.RANK, 0, {"late/norm": 3.0}),
        (Kind.CLUSTER, 1, {"late/norm": 3.0}),
    ]
    assert ["peak_rank" in record.by_key() for record in records] == [False, True]


def test_logged_record_has_late_values_only(tmp_path: Path) -> None:
    """Values that were logged have the step that they name, an ordinal, no base value; the rank's progress stays."""
    ring = make(tmp_path)
    (index,) = keys_of(ring, 1)
    write(ring, 5, [], kind=Kind.CLUSTER)
    write(ring, 9, [(index, 3.0, 2.0)], logged=True, kind=Kind.CLUSTER)
    reader = RingReader(ring.path)
    _, record = reader.read(0, 100)[0]
    assert (record.step, record.ordinal, record.logged, record.by_key()) == (9, 2, True, {"late/0": 1.5})
    assert (len(record.values), reader.progress.step) == (2, 5)


@pytest.mark.parametrize(
    "metric",
    [
        Metric("late", Reduction.MAX),
        Metric("late", Reduction.SUM, Instrument.COUNTER),
        rows.PICKS,
        Metric("train/loss", Reduction.NORM),
    ],
    ids=["max", "counter", "catalogue", "other"],
)
def test_other_keys_are_refused(metric: Metric, tmp_path: Path) -> None:
    """Only a mean, norm or sum of the user's own can come late, and no other metric than the schema's of that name."""
    with pytest.raises(RingError, match="can't be added to a ring"):
        make(tmp_path).add_key(metric)


@pytest.mark.parametrize("name", ["late/{}", "{:0240}", "\N{SNOWMAN}" * 30 + "{}"], ids=["count", "long", "escaped"])
def test_full_key_table_takes_no_more(name: str, tmp_path: Path) -> None:
    """A table that is full, by its rows or its bytes, takes no key more; those that it has go on."""
    ring = make(tmp_path)
    indices = [ring.add_key(Metric(name.format(number))) for number in range(MOST_LATE_KEYS + 9)]
    fitting = [index for index in indices if index is not None]
    assert fitting == list(range(len(fitting)))
    assert indices == fitting + [None] * (len(indices) - len(fitting))
    assert ring.add_key(Metric(name.format(3))) == 3
    write(ring, 1, [(index, 2.0 * index, 2.0) for index in fitting])
    reader = RingReader(ring.path)
    (record,) = reader.read(0, 1)[0]
    assert len(reader.late_keys) == len(fitting)
    assert record.by_key()[name.format(fitting[-1])] == fitting[-1]


def test_unfinished_key_row_is_not_read(tmp_path: Path) -> None:
    """A row that its writer was killed in is no key; the ring is read as before."""
    ring = make(tmp_path)
    keys_of(ring, 1)
    second = ring.geometry.table_offset + KEY_ROW.size + len(b'["late/0", "", "gauge", "mean"]')
    write(ring, 1, [(0, 1.0, 1.0)])
    content = bytearray(ring.path.read_bytes())
    KEY_ROW.pack_into(content, second, 30, 12345)
    ring.path.write_bytes(content)
    reader = RingReader(ring.path)
    assert [late_of(record) for record in reader.read(0, 9)[0]] == [{"late/0": 1.0}]
    assert [key.name for key in reader.late_keys] == ["late/0"]


@pytest.mark.parametrize(
    "row",
    [b'["late", "1", "gauge", "max"]', b'["train/loss", "1", "gauge", "mean"]', b"[", b'["\\ud800","","gauge","mean"]'],
    ids=["max", "there", "cut", "surrogate"],
)
def test_damaged_key_is_ring_error(row: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that means nothing is refused though its check value fits: a sidecar goes on without the ring."""
    monkeypatch.setattr("otel_train.ring.late_keys.dump_key", lambda _: row)
    ring = make(tmp_path)
    reader = RingReader(ring.path)
    ring.add_key(Metric("late"))
    with pytest.raises(RingError, match="is damaged"):
        reader.read(0, 1)


def test_torn_part_costs_late_values(tmp_path: Path) -> None:
    """A part that is torn costs the late values of its record, which is given without them."""
    ring = make(tmp_path)
    indices = keys_of(ring, 40)
    write(ring, 1, [(index, 1.0, 1.0) for index in indices])
    write(ring, 2, [(0, 7.0, 1.0)])
    content = bytearray(ring.path.read_bytes())
    content[ring.geometry.offset(1) + 40] ^= 1
    ring.path.write_bytes(content)
    records, position, lost = RingReader(ring.path).read(0, 100)
    assert [(record.step, late_of(record)) for record in records] == [(1, {}), (2, {"late/0": 7.0})]
    assert (position, lost) == (ring.written, 1)


def test_position_is_never_inside_record(tmp_path: Path) -> None:
    """A limit that would end between parts and their record is passed by: the record comes with the first of them."""
    ring = make(tmp_path)
    write(ring, 1, [(index, 1.0, 1.0) for index in keys_of(ring, 60)])
    write(ring, 2, [])
    reader = RingReader(ring.path)
    records, position, _ = reader.read(0, 1)
    assert ([record.step for record in records], position, len(late_of(records[0]))) == ([1], ring.written - 1, 60)
    assert (records[0].parts, records[0].first) == (ring.written - 2, 0)
    # Whoever begins in the middle, by a number of records, has all of it too.
    assert len(late_of(reader.read(2, 100)[0][0])) == 60


def test_tiny_ring_keeps_base_values(tmp_path: Path) -> None:
    """Late values take half of a ring at most; what does not fit is left out, and the record is read."""
    ring = make(tmp_path, records=4, schema=NARROW)
    write(ring, 1, [(index, 5.0, 1.0) for index in keys_of(ring, 90)])
    (record,) = RingReader(ring.path).read(0, 9)[0]
    assert (record.by_key(), ring.written) == ({"train/loss": 1.0, "late/0": 5.0}, 3)


Written = tuple[int, bool, int]
"""Number of late values, whether it was logged, kind."""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    schedule=st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.sampled_from([1, 2, 3])), max_size=40),
    records=st.sampled_from([8, 20, 64]),
    narrow=st.booleans(),
    limits=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    seed=st.integers(0, 99),
)
def test_reader_gives_what_was_written(
    schedule: list[Written], records: int, narrow: bool, limits: list[int], seed: int
) -> None:
    """Whatever comes when, in whatever pieces it is read: each record that is left has its own values, and no other."""
    expected: dict[int, tuple[int, dict[str, float]]] = {}
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        ring = make(Path(name), records=records, schema=NARROW if narrow else SCHEMA)
        room = ring.geometry.most_parts * ring.geometry.values // 3
        reader, position, seen = RingReader(ring.path), 0, list[Record]()
        for step, (count, logged, kind) in enumerate(schedule, start=1):
            names = draw.sample(range(40), count)
            indices = [ring.add_key(Metric(f"late/{number}")) for number in names]
            late = [(index or 0, float(step + number), 2.0) for index, number in zip(indices, names, strict=True)]
            write(ring, step, late, logged=logged, kind=Kind(kind))
            values = {f"late/{number}": (step + number) / 2 for number in names[:room]}
            expected[ring.written - 1] = step, values
            if draw.random() < 0.5:
                some, position, _ = reader.read(position, draw.choice(limits))
                seen += some
        while position < ring.written:
            some, position, _ = reader.read(position, draw.choice(limits))
            seen += some
        newest = RingReader(ring.path).read(0, 10**6)[0]
    for record in (*seen, *newest):
        step, values = expected[record.sequence]
        assert (record.step, record.time_ns) == (step, 10 * step)
        # Parts that were overwritten cost the late values, all of them.
        assert late_of(record) in (values, {})
        assert record.logged == schedule[step - 1][1]
        assert (record.by_key().get("train/loss") == 1.0) == (not record.logged)
    oldest = ring.written - records
    for record in newest:
        if record.sequence - len(expected[record.sequence][1]) * 3 >= oldest:
            assert late_of(record) == expected[record.sequence][1]
    assert [record.sequence for record in seen] == sorted(record.sequence for record in seen)
    if ring.written <= records:
        assert {record.sequence for record in seen} == {record.sequence for record in newest} == expected.keys()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(at=st.integers(0, KEY_TABLE_SIZE + 6000), byte=st.integers(0, 255))
def test_damaged_byte_costs_little(at: int, byte: int) -> None:
    """One changed byte in keys, parts or records costs what it stands in, or the ring, and never gives other values."""
    with tempfile.TemporaryDirectory() as name:
        ring = make(Path(name), records=8)
        for step in (1, 2):
            write(ring, step, [(index, float(index), 1.0) for index in keys_of(ring, 20)])
        content = bytearray(ring.path.read_bytes())
        content[min(len(content) - 1, ring.geometry.table_offset + at)] = byte
        ring.path.write_bytes(content)
        try:
            read = RingReader(ring.path).read(0, 100)[0]
        except RingError:
            return
    for record in read:
        assert late_of(record).items() <= {f"late/{index}": float(index) for index in range(20)}.items()


def test_key_of_schema_is_logged(tmp_path: Path) -> None:
    """Values of the schema's own keys are logged too, a sum among them; their steps' records are as before."""
    tokens = Metric("tokens", Reduction.SUM, description="told to people only")
    ring = make(tmp_path, schema=Schema((Metric("train/loss"), tokens)))
    indices = [
        ring.add_key(metric) for metric in (Metric("tokens", Reduction.SUM), Metric("train/loss"), Metric("new"))
    ]
    late = [(index or 0, 2.0 * number, 4.0) for number, index in enumerate(indices, 1)]
    ring.write(7, 1, Kind.RANK, (3.0, 1.0, 5.0), late[2:])
    ring.write(3, 2, Kind.RANK, (), late, logged=True)
    records, _, _ = RingReader(ring.path).read(0, 9)
    assert [record.by_key() for record in records] == [
        {"train/loss": 3.0, "tokens": 5.0, "new": 1.5},
        {"tokens": 2.0, "train/loss": 1.0, "new": 1.5},
    ]


def test_killed_writer_leaves_whole_records(tmp_path: Path) -> None:
    """While a process writes as fast as it can, and after it was killed, each record has all of its own late values."""
    program = """
        import itertools, sys
        from pathlib import Path
        from tests.ring.test_late_keys import keys_of, make, write
        ring = make(Path(sys.argv[1]), records=256)
        print(flush=True)
        for step in itertools.count(1):
            write(ring, step, [(index, float(step), 1.0) for index in keys_of(ring, step % 50)], logged=step % 3 == 0)
    """
    command = [sys.executable, "-c", dedent(program), str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        reader, position, seen = RingReader(ring_path(tmp_path, IDENTITY)), 0, 0
        while seen < 3000:
            assert process.poll() is None, "the writer has failed"
            records, position, _ = reader.read(position, 64)
            seen += sum(map(check_step, records))
        process.kill()
    records, position, lost = reader.read(0, 10**6)
    assert position == reader.progress.written
    assert sum(map(check_step, records)) > 10
    assert lost >= position - 256


def check_step(record: Record) -> bool:
    """Check that the late values of a step are all there or, where they are overwritten, none; tell which."""
    late, step = late_of(record), record.step
    assert late == {f"late/{number}": step for number in range(step % 50)} or record.partial
    assert record.logged == (step % 3 == 0)
    return bool(late)
