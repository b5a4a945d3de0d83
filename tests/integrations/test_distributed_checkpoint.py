"""A fit's state in a checkpoint of torch.distributed.checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from otel_train import SourceMeter
from otel_train.integrations.distributed_checkpoint import keep_in_checkpoints
from otel_train.integrations.fit_session import FitSession

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


class Checkpointer:
    """A checkpointer whose states are read and written as torchtitan's does."""

    def __init__(self, weight: float) -> None:
        self.states: dict[str, Any] = {"weight": torch.tensor(weight)}

    def save(self, folder: Path) -> None:
        """Save all states."""
        save(dict(self.states), checkpoint_id=folder, no_dist=True)

    def dcp_load(self, state_dict: dict[str, Any], checkpoint_id: Path) -> None:
        """Read the states that are asked for."""
        load(state_dict, checkpoint_id=checkpoint_id, no_dist=True)


@pytest.fixture
def rings(tmp_path: Path) -> dict[str, Any]:
    """Return the options of sessions that stay in the test's folder."""
    return {"ring_dir": tmp_path / "rings"}


def test_fit_goes_on_from_checkpoint(tmp_path: Path, rings: dict[str, Any]) -> None:
    """A fit goes on in the saved run, its meter from the saved counts; the keys that were logged are known at once."""
    meters = [SourceMeter({"code": 1, "prose": 3}) for _ in range(2)]
    fits = [FitSession(meter=meter, **rings) for meter in meters]
    saved, loaded = Checkpointer(1.0), Checkpointer(0.0)
    keep_in_checkpoints(saved, fits[0], {"loss": None})
    fits[0].begin()
    meters[0].count(meters[0].tag("code")({"x": 1}))
    fits[0].step(1)
    saved.save(tmp_path / "step-1")
    fits[0].end()

    keys: dict[str, None] = {}
    keep_in_checkpoints(loaded, fits[1], keys)
    loaded.dcp_load(dict(loaded.states), tmp_path / "step-1")
    fits[1].begin(1)
    fits[1].step(2)
    fits[1].end()
    assert fits[1].state_dict()["run_id"] == fits[0].state_dict()["run_id"]
    assert meters[1].state_dict()["meter"]["counts"] == meters[0].state_dict()["meter"]["counts"]
    assert list(keys) == ["loss"]


def test_older_checkpoint_is_read(tmp_path: Path) -> None:
    """A checkpoint that was saved without a fit is read as before."""
    Checkpointer(1.0).save(tmp_path / "step-1")
    later = Checkpointer(0.0)
    keep_in_checkpoints(later, FitSession(), {})
    later.dcp_load(dict(later.states), tmp_path / "step-1")
    assert later.states["weight"] == 1.0


def test_other_missing_keys_fail(tmp_path: Path) -> None:
    """A checkpoint that lacks another state fails as before."""
    Checkpointer(1.0).save(tmp_path / "step-1")
    later = Checkpointer(0.0)
    later.states["bias"] = torch.tensor(0.0)
    keep_in_checkpoints(later, FitSession(), {})
    with pytest.raises(CheckpointException, match="bias"):
        later.dcp_load(dict(later.states), tmp_path / "step-1")
