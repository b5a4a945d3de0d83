"""The name of the session's own process group."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed as dist

from otel_train.step.rank_group import RankGroup


def test_restarted_ranks_rename_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that torchrun started again take a new group name: the store holds old addresses under the old one."""

    def name_of_own_group(store: Path) -> str:
        """Return the name of the first group that a session makes in a job of one rank."""
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
        try:
            handle = RankGroup.of(None, own=True).handle
            assert handle is not None
            return str(handle.group_name)
        finally:
            dist.destroy_process_group()

    names = [name_of_own_group(tmp_path / f"{number}") for number in range(2)]
    assert names[0] == names[1]
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    again = [name_of_own_group(tmp_path / f"again{number}") for number in range(2)]
    assert len({names[0], *again}) == 3
