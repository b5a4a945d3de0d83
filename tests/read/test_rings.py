"""A job's rings, followed while ranks come, go, and leave damage."""

from __future__ import annotations

from pathlib import Path

import pytest

import otel_train
from otel_train.read.rings import RingJob
from otel_train.top.snapshot import RANK_KEYS
from tests.support.job_rings import ATTEMPT, EVICTIONS, FakeRank, write_job


def test_late_ring_is_read(tmp_path: Path) -> None:
    """The ranks of a node do not make their rings at the same moment, and a later one belongs to the job."""
    write_job(tmp_path, 1, 3)
    job = RingJob(tmp_path)
    FakeRank(tmp_path, 1, 2).write(5)
    job.refresh()
    assert [state.step for state in job.states()] == [3, 5]
    assert job.history.ranks[1].steps == [5]


def test_newer_attempt_replaces_older(tmp_path: Path) -> None:
    """A newer attempt replaces the older one, as a job is one attempt's."""
    write_job(tmp_path, 2, 3)
    job = RingJob(tmp_path, newest=8)
    FakeRank(tmp_path, 0, 1, ATTEMPT + 1).write(1)
    job.refresh()
    assert (job.attempt, list(job.rings), job.history.ranks[0].steps) == (ATTEMPT + 1, [0], [1])


def test_damaged_ring_is_named(tmp_path: Path) -> None:
    """A ring that is damaged, from the beginning or later, is named, and the others are read on."""
    ranks = write_job(tmp_path, 3, 3)
    (tmp_path / "rank00007-5.ring").write_bytes(b"no ring")
    job = RingJob(tmp_path)
    with ranks[1].ring.path.open("r+b") as file:
        file.seek(128)
        file.write(b"\xff" * 8)  # more records than anybody can have written
    ranks[2].write(4)
    job.refresh()
    assert sorted(path.name for path in job.damaged) == [ranks[1].ring.path.name, "rank00007-5.ring"]
    assert [state.step for state in job.states()] == [3, 4]


def test_newest_records_suffice(tmp_path: Path) -> None:
    """With a bound so many records are read at first and so many steps are kept, with the same values."""
    ranks = write_job(tmp_path, 2, 20)
    whole, glance = RingJob(tmp_path), RingJob(tmp_path, newest=6, rank_keys=RANK_KEYS)
    assert glance.history.ranks[1].steps == list(range(15, 21))
    assert glance.history.cluster.steps == [18, 19, 20]  # rank 0 writes two records a step
    for step in range(21, 24):
        ranks[1].write(step, values={EVICTIONS: step})
    whole.refresh()
    glance.refresh()
    assert glance.history.ranks[1].steps == list(range(18, 24))
    for key in RANK_KEYS:
        assert glance.history.ranks[1].values[key] == whole.history.ranks[1].values[key][-6:]


def test_named_sources_are_no_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss by source of a job that measures no mix names its sources, and no modality that has a share."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    loss = otel_train.Scalar("train/loss", by=("code", "a/b"))
    with otel_train.init(metrics=[loss], ring_dir=tmp_path, close_timeout=0.01) as telemetry:
        telemetry.step(1, {"train/loss": [1.0, 3.0], "train/loss/other": 2.0}, by=["code", "a/b"])
    history = RingJob(tmp_path).history
    assert (history.modalities, history.sources) == ((), ("code", "a/b"))
    assert history.by_source() == {"train/loss": ["train/loss/code", "train/loss/a/b"]}
