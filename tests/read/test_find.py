"""The rings of a job are found by its directory, or as the newest ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.exceptions import ConfigurationError, OtelTrainError
from otel_train.read.find import find_job
from tests.support.job_rings import ATTEMPT, FakeRank


def test_newest_job_is_chosen(tmp_path: Path) -> None:
    """The newest job has the newest attempt, which is the time of its start; a smoke run's folder is its rings."""
    for name, attempt in (("old", ATTEMPT), ("new/rings", ATTEMPT + 2), ("middle", ATTEMPT + 1)):
        (tmp_path / name).mkdir(parents=True)
        FakeRank(tmp_path / name, 0, 1, attempt)
    FakeRank(tmp_path / "middle", 0, 1, ATTEMPT - 1)
    (tmp_path / "empty").mkdir()
    assert find_job(None, bases=(tmp_path / "nothing", tmp_path)) == tmp_path / "middle"
    assert find_job(tmp_path / "new") == tmp_path / "new" / "rings"
    assert find_job(tmp_path / "old") == tmp_path / "old"


def test_missing_job_is_refused(tmp_path: Path) -> None:
    """A missing directory is a wrong call; one without rings may have some later."""
    with pytest.raises(ConfigurationError, match=r"nothing is not a directory; give the job's OTEL_TRAIN_RING_DIR"):
        find_job(tmp_path / "nothing")
    with pytest.raises(OtelTrainError, match="holds no ring; wait for the job's first step"):
        find_job(tmp_path)
    (tmp_path / "wandb").mkdir()
    with pytest.raises(OtelTrainError, match="holds no ring, but wandb files: `otel-train doctor` and others read"):
        find_job(tmp_path)
    with pytest.raises(OtelTrainError, match="no job of yours has rings"):
        find_job(None, bases=(tmp_path,))
