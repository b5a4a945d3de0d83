"""Keys that came late and values that were logged beside the steps, in what reads rings and wandb's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_train.catalogue import Metric
from otel_train.read.dump import Dump
from otel_train.read.history import Track
from otel_train.read.rings import RingJob
from otel_train.ring import Kind
from tests.support.job_rings import ATTEMPT, SECOND, FakeRank, write_job

EVAL = "eval/loss"


def log(rank: FakeRank, step: int, at: float, value: float, kind: Kind = Kind.CLUSTER) -> None:
    """Write a value that was logged for a step."""
    index = rank.ring.add_key(Metric(EVAL)) or 0
    rank.ring.write(step, ATTEMPT * 10**6 + round(at * SECOND), kind, (), [(index, 2 * value, 2.0)], logged=True)


@pytest.fixture
def ranks(tmp_path: Path) -> list[FakeRank]:
    """Return the ranks of a job of six steps, two of which have an evaluation."""
    ranks = write_job(tmp_path, 2, 6)
    log(ranks[1], 5, 5.5, 1.0, Kind.RANK)
    log(ranks[0], 4, 6.9, 3.0)
    ranks[0].write(7, Kind.CLUSTER)
    return ranks


def test_rings_merge_logged_values(ranks: list[FakeRank], tmp_path: Path) -> None:
    """A logged value stands beside its step's own, whatever was written in between; later steps stay."""
    job = RingJob(tmp_path)
    assert job.history.cluster.steps == [1, 2, 3, 4, 5, 6, 7]
    assert list(job.history.cluster.points(EVAL)) == [(4, 3.0)]
    assert list(job.history.cluster.points("train/loss")) == [(step, 0.5) for step in range(1, 8)]
    assert list(job.history.ranks[1].points(EVAL)) == [(5, 1.0)]
    log(ranks[0], 6, 7.5, 2.0)
    job.refresh()
    assert list(job.history.cluster.points(EVAL)) == [(4, 3.0), (6, 2.0)]


def test_selected_keys_survive_late_ones(ranks: list[FakeRank], tmp_path: Path) -> None:
    """Who reads some keys and the newest steps only has the same values after the layout has grown."""
    assert list(RingJob(tmp_path, newest=9, rank_keys={EVAL}).history.ranks[1].points(EVAL)) == [(5, 1.0)]
    job = RingJob(tmp_path, newest=6, rank_keys={"train/loss"})
    log(ranks[1], 6, 6.5, 9.0, Kind.RANK)
    ranks[1].write(7)
    log(ranks[1], 1, 7.5, 9.0, Kind.RANK)
    job.refresh()
    assert list(job.history.ranks[1].points("train/loss")) == [(step, 0.5) for step in range(3, 8)]
    assert not [*job.history.ranks[1].points(EVAL)]


@pytest.mark.usefixtures("ranks")
def test_dump_has_logged_rows(tmp_path: Path) -> None:
    """A dump has a column for a late key, and logged values in rows of a kind of their own."""
    dump = Dump(tmp_path)
    assert EVAL in dump.columns
    rows = [row for row in dump.rows() if EVAL in row]
    assert [(row["rank"], row["kind"], row["step"], row[EVAL]) for row in rows] == [
        (0, "cluster_logged", 4, 3.0),
        (1, "rank_logged", 5, 1.0),
    ]
    assert "train/loss" not in rows[0]


def test_merged_rows_stay_ahead() -> None:
    """What was logged for a step that is still to come joins that step's values; another attempt replaces it."""
    track = Track()
    track.add(1, 10, {"a": 1.0})
    track.merge(4, 15, {"e": 4.0})
    for step in (2, 3, 4, 5):
        track.add(step, 10 * step, {"a": float(step)})
    assert (track.steps, list(track.points("e"))) == ([1, 2, 3, 4, 5], [(4, 4.0)])
    assert track.times_ns == sorted(track.times_ns)
    track.merge(9, 60, {"e": 9.0})
    track.begin_attempt()
    track.add(3, 70, {"a": 3.0})
    assert (track.steps, list(track.points("e"))) == ([1, 2, 3], [])


@given(
    logged=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=12),
    every=st.integers(1, 4),
)
def test_merging_keeps_all_values(logged: list[tuple[int, int]], every: int) -> None:
    """Whatever is logged for whatever step, whenever: each step has its own values and the last that were logged."""
    track, expected = Track(), dict[int, float]()
    for step in range(1, 21):
        if step % every == 0:
            track.add(step, 100 * step, {"a": float(step)})
        for number, (at, of) in enumerate(logged):
            if at == step:
                track.merge(of, 100 * step + 1 + number, {"e": number + 1.0})
                expected[of] = number + 1.0
    assert dict(track.points("e")) == expected
    assert dict(track.points("a")) == {step: float(step) for step in range(every, 21, every)}
    assert track.steps == sorted({*expected, *range(every, 21, every)})
    assert track.times_ns == sorted(track.times_ns)
