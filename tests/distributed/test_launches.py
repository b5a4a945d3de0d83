"""torchrun's launches: a restart is the same run, and another launch another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from otel_train.ring import RingReader, ring_files
from tests.support.environment import clean_environment
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
RENDEZVOUS = ("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")


def torchrun(out: Path, *options: str, failures: int = 0, **environment: str) -> subprocess.Popen[str]:
    """Start a job that fails so many times."""
    command = [sys.executable, "-m", "torch.distributed.run", *options, f"--max-restarts={failures}"]
    command += ["-m", "tests.distributed.restarted_ranks", str(out), str(failures)]
    return subprocess.Popen(
        command,
        env=clean_environment(OTEL_TRAIN_SIDECAR="external", **environment),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(job: subprocess.Popen[str]) -> None:
    """Wait until it has ended well."""
    errors = job.communicate(timeout=200)[1]
    assert job.returncode == 0, errors


def runs_of(directory: Path) -> list[tuple[str, int, int]]:
    """Return run, attempt and last step of each ring."""
    readers = [RingReader(path) for path in ring_files(directory)]
    return [(each.identity.run_id, each.identity.attempt, each.progress.step) for each in readers]


@pytest.mark.parametrize(
    ("ranks", "unshared"), [(1, "0"), pytest.param(2, "1", marks=pytest.mark.faults)], ids=["shared store", "own store"]
)
def test_a_restart_is_another_attempt_of_the_same_run(ranks: int, unshared: str, tmp_path: Path) -> None:
    """Also where torchrun has no id, and where its store still holds what the last attempt said."""
    options = (*RENDEZVOUS, f"--nproc-per-node={ranks}")
    ended(torchrun(tmp_path, *options, failures=1, TORCH_DISABLE_SHARE_RDZV_TCP_STORE=unshared))
    found = runs_of(tmp_path)
    assert len({run_id for run_id, _, _ in found}) == 1
    assert [step for _, _, step in found] == [2] * 2 * ranks
    assert len({attempt for _, attempt, _ in found}) == 2


@pytest.mark.faults
def test_launches_with_one_rendezvous_id_are_runs_of_their_own(tmp_path: Path) -> None:
    """At once: many public scripts have the same one."""
    jobs = [torchrun(tmp_path / name, "--rdzv-id=101", f"--master-port={free_port()}") for name in ("a", "b")]
    for job in jobs:
        ended(job)
    (first, *_), (second, *_) = (runs_of(tmp_path / name)[0] for name in ("a", "b"))
    assert first != second
    assert (first[:4], second[:4]) == ("101-", "101-")
