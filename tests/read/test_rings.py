"""A job's rings, followed while ranks come, go, and leave damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.exceptions import ConfigurationError, OtelTrainError
from otel_train.read.find import find_job
from otel_train.read.rings import RingJob
from otel_train.top.snapshot import RANK_KEYS
from tests.support.job_rings import ATTEMPT, EVICTIONS, FakeRank, write_job


def test_a_ring_that_comes_late_belongs_to_the_job(tmp_path: Path) -> None:
    """The ranks of a node do not make their rings at the same moment."""
    write_job(tmp_path, 1, 3)
    job = RingJob(tmp_path)
    FakeRank(tmp_path, 1, 2).write(5)
    job.refresh()
    assert [state.step for state in job.states()] == [3, 5]
    assert job.history.ranks[1].steps == [5]


def test_a_newer_attempt_takes_the_place_of_the_older_one(tmp_path: Path) -> None:
    """What is shown is one attempt's."""
    write_job(tmp_path, 2, 3)
    job = RingJob(tmp_path, newest=8)
    FakeRank(tmp_path, 0, 1, ATTEMPT + 1).write(1)
    job.refresh()
    assert (job.attempt, list(job.rings), job.history.ranks[0].steps) == (ATTEMPT + 1, [0], [1])


def test_a_damaged_ring_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    """Whether it is damaged from the beginning, or turns out to be later."""
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


def test_the_newest_records_are_enough_for_a_glance(tmp_path: Path) -> None:
    """So many records are read at first, so many steps are kept; the values are those of the whole."""
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


def test_the_newest_job_is_found(tmp_path: Path) -> None:
    """By its attempt, which is the time of its start; a smoke run's folder stands for the rings in it."""
    for name, attempt in (("old", ATTEMPT), ("new/rings", ATTEMPT + 2), ("middle", ATTEMPT + 1)):
        (tmp_path / name).mkdir(parents=True)
        FakeRank(tmp_path / name, 0, 1, attempt)
    FakeRank(tmp_path / "middle", 0, 1, ATTEMPT - 1)
    (tmp_path / "empty").mkdir()
    assert find_job(None, bases=(tmp_path / "nothing", tmp_path)) == tmp_path / "middle"
    assert find_job(tmp_path / "new") == tmp_path / "new" / "rings"
    assert find_job(tmp_path / "old") == tmp_path / "old"


def test_no_job_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    """A missing directory is a wrong call; one without rings may have some later."""
    with pytest.raises(ConfigurationError, match=r"nothing is not a directory; give the job's OTEL_TRAIN_RING_DIR"):
        find_job(tmp_path / "nothing")
    with pytest.raises(OtelTrainError, match="holds no ring; wait for the job's first step"):
        find_job(tmp_path)
    with pytest.raises(OtelTrainError, match="no job of yours has rings"):
        find_job(None, bases=(tmp_path,))
