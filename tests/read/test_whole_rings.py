"""Rings that are read wholly, column by column, give what reading them record by record gives."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_train.catalogue import Layout, Metric, Reduction, rows
from otel_train.native import core
from otel_train.read import column_values, pick_columns, pick_orders
from otel_train.read.column_values import series_values
from otel_train.read.history import Track
from otel_train.read.rings import RingJob
from otel_train.read.whole_rings import WholeRings, read_rings
from otel_train.ring import Kind, columns
from tests.support.job_rings import ATTEMPT, SECOND, FakeRank, write_job

EVAL = Metric("eval/loss")
NUMBERS = (0.0, -0.0, 1.0, 3.5, -2.0, 1e300, math.inf, -math.inf, math.nan)


def log(rank: FakeRank, step: int, value: float, kind: Kind = Kind.CLUSTER) -> None:
    """Write a value that was logged for a step."""
    index = rank.ring.add_key(EVAL) or 0
    rank.ring.write(
        step, ATTEMPT * 10**6 + round(9.5 * SECOND) + step, kind, (), [(index, 2 * value, 2.0)], logged=True
    )


def late_values(ranks: list[FakeRank]) -> None:
    """Log values for a step before the first, one with a record, some to come; give one with a record's own."""
    log(ranks[0], 0, 4.0)
    log(ranks[0], 4, 1.0)
    log(ranks[0], 100, 2.0)
    log(ranks[1], 3, 3.0, Kind.RANK)
    layout = ranks[0].layout
    index = ranks[0].ring.add_key(EVAL) or 0
    values = [1.0] * (layout.sums + 2 * layout.peaks)
    ranks[0].ring.write(20, ATTEMPT * 10**6 + 20 * SECOND, Kind.CLUSTER, values, [(index, 3.0, 1.0)])


def torn_record(ranks: list[FakeRank]) -> None:
    """Damage a record in the middle."""
    geometry, path = ranks[1].ring.geometry, ranks[1].ring.path
    with path.open("r+b") as file:
        file.seek(geometry.offset(5) + 48)
        file.write(b"torn")


def overwritten(ranks: list[FakeRank]) -> None:
    """Write more records than a ring holds."""
    for step in range(10, 90):
        ranks[1].write(step)


def steps_again(ranks: list[FakeRank]) -> None:
    """Make a step again, as nobody should."""
    ranks[1].write(4)


def values_of(track: Track) -> dict[str, list[str]]:
    """Return a track's columns as text, which has NaN equal to itself."""
    return {key: [repr(value) for value in track.column(key)] for key in track.values}


def assert_same(job: RingJob, reference: RingJob) -> None:
    """Compare two readings of the same rings."""
    one, other = job.history, reference.history
    assert one.ranks.keys() == other.ranks.keys()
    tracks: Iterable[tuple[Track, Track]] = [
        (one.cluster, other.cluster),
        *((one.ranks[rank], other.ranks[rank]) for rank in one.ranks),
    ]
    for track, expected in tracks:
        assert (list(track.steps), list(track.times_ns)) == (expected.steps, expected.times_ns)
        assert values_of(track) == values_of(expected)
        assert [repr(track.last(key)) for key in track.values] == [repr(expected.last(key)) for key in track.values]
        assert track.first_own() == expected.first_own()
    assert list(one.mix) == list(other.mix)
    assert (one.order_groups, one.reuse, one.dropped) == (other.order_groups, other.reuse, other.dropped)


@pytest.mark.parametrize("happens", [late_values, torn_record, overwritten, steps_again])
def test_whole_rings_equal_records(tmp_path: Path, happens: Callable[[list[FakeRank]], None]) -> None:
    """Late keys, torn and overwritten records, and steps out of order make no difference."""
    happens(write_job(tmp_path, 2, 9))
    job = read_rings(tmp_path)
    assert isinstance(job, WholeRings) == (happens is not steps_again)
    assert_same(job, RingJob(tmp_path))


@pytest.mark.parametrize("pure", [False, True])
def test_picks_equal_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, pure: bool) -> None:
    """The picks of each interval are the same to the last bit, with the core and with its twins."""
    if pure:
        for module in (column_values, pick_columns, pick_orders):
            monkeypatch.setattr(module, "core", None)
        monkeypatch.setattr(columns, "_gather", columns._gather_twin)
        monkeypatch.setattr(columns, "_whole_records", columns._whole_records_twin)
    from benchmarks.tool_inputs import write_rings  # a mutant's copy of the tree has no benchmarks

    write_rings(tmp_path / "rings", 60, ranks=3)
    assert_same(WholeRings(tmp_path / "rings"), RingJob(tmp_path / "rings"))


def test_values_overwritten_meanwhile_are_none(tmp_path: Path) -> None:
    """A column that is read after the writer has gone on has no value of what it wrote over, and all others."""
    ranks = write_job(tmp_path, 2, 9)
    track = WholeRings(tmp_path).history.ranks[1]
    for step in range(10, 10 + 58):
        ranks[1].write(step)
    column = track.column("train/loss")
    assert [math.isnan(value) for value in column] == [True] * 3 + [False] * 6


def test_memory_is_that_of_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many columns are read, a few are kept, and a pass holds a part of the ring."""
    write_job(tmp_path, 2, 20)
    monkeypatch.setattr(columns, "PASS_BYTES", 2000)
    track = WholeRings(tmp_path).history.cluster
    read = [id(track.column(key)) for key in track.values]
    assert len(read) > 30
    kept = track.values.kept  # type: ignore[attr-defined]
    assert len(kept) == 3


METRICS = (rows.STALENESS_MEAN, rows.MIX_DIVERGENCE, rows.MODALITY_SHARE, rows.ALIKE_RANKS, rows.EVICTIONS)
OWN = (
    Metric("mean"),
    Metric("sum", Reduction.SUM),
    Metric("norm", Reduction.NORM),
    Metric("most", Reduction.MAX),
    Metric("least", Reduction.MIN),
)
LAYOUT = Layout((*METRICS, *OWN), ("a", "b"))


@given(st.lists(st.lists(st.sampled_from(NUMBERS), min_size=40, max_size=40), min_size=1, max_size=4), st.booleans())
def test_columns_equal_values(records: list[list[float]], cluster: bool) -> None:
    """Whatever a record holds, a series is the same by columns as record by record."""

    def read(indices: range) -> list[array[float]]:
        return [array("d", [record[index] for record in records]) for index in indices]

    splits = [LAYOUT.split(record[: LAYOUT.sums + 2 * LAYOUT.peaks]) for record in records]
    for index in range(len(LAYOUT.series)):
        try:
            expected = [LAYOUT.values(sums, peaks, ranks if cluster else ())[index] for sums, peaks, ranks in splits]
        except (ArithmeticError, ValueError):
            continue
        got = series_values(LAYOUT, index, read, with_ranks=cluster)
        assert [repr(value) for value in got] == [repr(math.nan if value is None else value) for value in expected]


def test_core_reads_columns() -> None:
    """The core is what reads, where it is built."""
    assert core is None or columns._gather is core.gather
