"""A session as it is in the checkpoints of trainers."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.ring import Kind, RingReader, ring_files
from tests.integrations.support.loader_job import JOBS, run_program

TRAINERS = {"accelerate": "torch", "ignite": "torch", "lightning": "torch", "composer": "composer"}
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("trainer", TRAINERS)
def test_resumed_session_keeps_run(tmp_path: Path, trainer: str) -> None:
    """It goes on in the run that it was saved in, as another attempt, with the cluster's values of both."""
    folder = tmp_path / trainer
    folder.mkdir()
    run_program(TRAINERS[trainer], JOBS / "saved_session_job.py", folder, seconds=200)
    readers = [RingReader(path) for path in ring_files(folder / "rings")]
    assert len({reader.identity.run_id for reader in readers}) == 1
    attempts = sorted({reader.identity.attempt for reader in readers})
    steps = {
        reader.identity.attempt: [record.step for record in reader.read(0, 100)[0] if record.kind is Kind.CLUSTER]
        for reader in readers
        if reader.identity.rank == 0
    }
    assert [steps[attempt] for attempt in attempts] == [[1, 2], [3, 4]]
