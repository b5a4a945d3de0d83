"""Checkpoints of the reference job on one rank; several are in tests/distributed and tests/e2e."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

import otel_train
from otel_train.exceptions import StateMismatchError
from otel_train.ledger import StateLedger
from otel_train.mixing import FileStream, StreamMixingDataset
from otel_train.trainer.checkpoint import Checkpoints, Parts


def make_parts(base: Path, hidden: int = 3, rate: float = 0.1, size: int = 100) -> Parts:
    """Return a job's parts, telemetry disabled by having no step."""
    (base / "text").write_bytes(bytes(size))
    model = torch.nn.Linear(2, hidden)
    return Parts(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), rate),
        dataset=StreamMixingDataset([FileStream("text", "prose", str(base / "text"), 10)], {"prose": 1}, readers=1),
        ledger=StateLedger((hidden,), capacity=2),
        telemetry=otel_train.Telemetry(),
    )


def test_partial_checkpoint_is_never_read(tmp_path: Path) -> None:
    """A checkpoint counts when it is whole; a later save of the same step does not mind the pieces."""
    checkpoints, parts = Checkpoints(tmp_path / "saved", keep=1), make_parts(tmp_path)
    checkpoints.save(4, parts)
    piece = tmp_path / "saved" / "step-00000008.partial"
    piece.mkdir()
    (piece / "__0_0.distcp").write_bytes(b"half")
    assert checkpoints.load(parts) == 4
    checkpoints.save(8, parts)
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["step-00000008"]


def test_missing_folder_begins_anew(tmp_path: Path) -> None:
    """The folder need not exist."""
    assert Checkpoints(tmp_path / "saved", keep=1).load(make_parts(tmp_path)) == 0


def test_other_jobs_checkpoint_raises(tmp_path: Path) -> None:
    """A model of another width can't go on from it."""
    checkpoints = Checkpoints(tmp_path / "saved", keep=1)
    checkpoints.save(4, make_parts(tmp_path))
    with pytest.raises(StateMismatchError, match=r"saved/step-00000004 is not one of this job"):
        checkpoints.load(make_parts(tmp_path, hidden=5))


def test_resume_uses_configured_learning_rate(tmp_path: Path) -> None:
    """A resume goes on with what the job is started with; the optimizer's moments are those that were saved."""
    checkpoints = Checkpoints(tmp_path / "saved", keep=1)
    checkpoints.save(4, make_parts(tmp_path))
    parts = make_parts(tmp_path, rate=0.5)
    assert checkpoints.load(parts) == 4
    assert [group["lr"] for group in parts.optimizer.param_groups] == [0.5]


def test_checkpoint_of_other_data_raises(tmp_path: Path) -> None:
    """A file that has become shorter than what was read of it; the message says which and where."""
    checkpoints, parts = Checkpoints(tmp_path / "saved", keep=1), make_parts(tmp_path)
    list(islice(parts.dataset, 8))
    checkpoints.save(4, parts)
    parts = make_parts(tmp_path, size=40)
    with pytest.raises(StateMismatchError, match=r"step-00000004 does not fit .* \(rank 0\): stream 'text' has 4 rows"):
        checkpoints.load(parts)
