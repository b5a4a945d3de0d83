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


def check_terminated(folder: Path, losses: Mapping[int, float]) -> None:
    """Check that the rings of a case read as those of killed processes, and have what had ended.

    Args:
        folder: Of the case.
        losses: The loss of all ranks by step, from their own records.
    """
    job = RingJob(folder / "rings")
    assert {state.identity.rank: (state.status, state.step) for state in job.states()} == dict.fromkeys(
        range(RANKS), (RankStatus.DIED, LAST)
    )
    steps = list(range(1, LAST + 1))
    assert [track.steps for track in job.history.ranks.values()] == [steps, steps]
    reduced = job.history.cluster.steps
    assert reduced == steps[: len(reduced)]
    assert len(reduced) >= LAST - 4, "no more reductions than `max_in_flight` are under way when a rank ends"
    expected = [losses[step] for step in reduced]
    assert job.history.cluster.values["train/loss"] == pytest.approx(expected, rel=1e-6)
    [finding] = [finding for finding in examine(job.history, job=job) if finding.check == "ranks"]
    assert "the process of ranks 0, 1 is gone" in finding.summary
