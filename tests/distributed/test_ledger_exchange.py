"""The sharded ledger over real gloo ranks: the same as one dict, whoever asks for what."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.ledger_ranks import CASES, WORLD_SIZES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where each rank of each group has written what it has to say, after one run of them all."""
    directory = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("ledger_ranks.py")
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={max(WORLD_SIZES)}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *launch, str(script), str(directory)],
        cwd=ROOT,
        env=environment,
        timeout=120,
        check=False,
        capture_output=True,
    )
    return directory


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("case", [case.__name__ for case in CASES])
def test_every_rank_agrees(directory: Path, world_size: int, case: str) -> None:
    """The case, a function of `ledger_ranks`, holds on every rank."""
    files = [directory / f"of{world_size}-rank{rank}.json" for rank in range(world_size)]
    outcome = [json.loads(file.read_text()) if file.exists() else {} for file in files]
    said = {rank: cases.get(case, "did not get that far") for rank, cases in enumerate(outcome)}
    assert not any(said.values()), "\n".join(f"{rank}: {text}" for rank, text in said.items())
