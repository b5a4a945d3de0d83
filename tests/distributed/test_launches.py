"""torchrun's launches: a restart is the same run, and another launch another one."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from otel_train.ring import RingReader, ring_files
from otel_train.smoke.child_process import running_process
from tests.support.hung_processes import output_of
from tests.support.ports import free_port
from tests.support.torchrun import rank_environment, run_torchrun, script, torchrun


def fail(out: Path, failures: int) -> None:
    """Take two steps in a group of all ranks, and fail so many times."""
    import os

    import torch.distributed as dist

    import otel_train

    dist.init_process_group("gloo")
    with otel_train.init(ring_dir=out / "rings", blocking=True, close_timeout=0.1) as telemetry:
        for step in (1, 2):
            telemetry.step(step, {"loss": 1.0})
        dist.barrier()
        if int(os.environ["TORCHELASTIC_RESTART_COUNT"]) < failures:
            os._exit(1)


@pytest.mark.parametrize(
    ("ranks", "unshared"), [(1, "0"), pytest.param(2, "1", marks=pytest.mark.faults)], ids=["shared store", "own store"]
)
def test_restart_is_another_attempt(ranks: int, unshared: str, tmp_path: Path) -> None:
    """It stays in the same run: also where torchrun has no id, and where its store still holds the last attempt."""
    options = ("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--max-restarts=1")
    program = script(tmp_path, fail, tmp_path, 1)
    run_torchrun(ranks, program, options=options, TORCH_DISABLE_SHARE_RDZV_TCP_STORE=unshared)
    readers = [RingReader(path) for path in ring_files(tmp_path / "rings")]
    assert len({reader.identity.run_id for reader in readers}) == 1
    assert [reader.progress.step for reader in readers] == [2] * 2 * ranks
    assert len({reader.identity.attempt for reader in readers}) == 2


@pytest.mark.faults
def test_launches_are_runs_apart(tmp_path: Path) -> None:
    """Two at once, with the one rendezvous id that many public scripts have."""
    folders = [tmp_path / name for name in ("a", "b")]
    with ExitStack() as running:
        jobs = []
        for folder in folders:
            folder.mkdir()
            command = torchrun(
                1, script(folder, fail, folder, 0), options=("--rdzv-id=101", f"--master-port={free_port()}")
            )
            jobs.append(running.enter_context(running_process(command, folder / "log", rank_environment())))
        for job, folder in zip(jobs, folders, strict=True):
            assert job.wait(200) == 0, (folder / "log").read_text()
    first, second = (RingReader(ring_files(folder / "rings")[0]).identity.run_id for folder in folders)
    assert first != second
    assert (first[:4], second[:4]) == ("101-", "101-")


def launch_twice(out: Path, port: int) -> None:
    """Fork a rank twice in one process, as two cells of a notebook do."""
    import torch.distributed.launcher.api as launcher

    for name in ("a", "b"):
        config = launcher.LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=1,
            run_id="none",
            rdzv_backend="static",
            rdzv_endpoint=f"127.0.0.1:{port}",
            rdzv_configs={"rank": 0},
            max_restarts=1,
            start_method="fork",
        )
        launcher.elastic_launch(config, fail)(out / name, 1)


def test_notebook_launches_are_runs(tmp_path: Path) -> None:
    """Launches of one process are runs of their own, and a restart in one of them is another attempt of its run."""
    output_of([sys.executable, script(tmp_path, launch_twice, tmp_path, free_port())], rank_environment(), 200)
    identities = [[RingReader(path).identity for path in ring_files(tmp_path / name / "rings")] for name in "ab"]
    assert [len({identity.attempt for identity in of_launch}) for of_launch in identities] == [2, 2]
    assert [len({identity.run_id for identity in of_launch}) for of_launch in identities] == [1, 1]
    assert identities[0][0].run_id != identities[1][0].run_id
