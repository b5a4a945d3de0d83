"""What the rings of a case that SIGTERM has ended must say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_train.diagnose.examine import examine
from otel_train.read.rank_ring import RankStatus
from otel_train.read.rings import RingJob
from tests.integrations.support.loader_job import RANKS
from tests.integrations.support.terminated import LAST


def check_terminated(folder: Path, losses: Mapping[int, float], last: int = LAST) -> None:
    """Check that the rings of a case say what ended it, and have every step that has a value, over the ranks too.

    Args:
        folder: Of the case.
        losses: The loss of all ranks by step, from their own records.
        last: The last step that has a value.
    """
    job = RingJob(folder / "rings")
    assert {state.identity.rank: (state.status, state.step) for state in job.states()} == dict.fromkeys(
        range(RANKS), (RankStatus.FAILED, last)
    )
    steps = list(range(1, last + 1))
    assert [track.steps for track in job.history.ranks.values()] == [steps, steps]
    reduced = job.history.cluster.steps
    assert reduced == steps
    expected = [losses[step] for step in reduced]
    assert job.history.cluster.values["train/loss"] == pytest.approx(expected, rel=1e-6)
    [finding] = [finding for finding in examine(job.history, job=job) if finding.check == "ranks"]
    assert f"ranks 0, 1 ended after step {last} with SIGTERM" in finding.summary
