"""The sharded ledger over real gloo ranks: the same as one dict, whoever asks for what."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.ledger_ranks import CASES

ROOT = Path(__file__).parents[2]
Outcome = dict[str, dict[str, str]]


@pytest.fixture(scope="module", params=[1, 2, 3, 4], ids="{}-ranks".format)
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Return what each rank has to say of each case, after one run of them all."""
    directory = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("ledger_ranks.py")
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={request.param}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *launch, str(script), str(directory)],
        cwd=ROOT,
        env=environment,
        timeout=120,
        check=False,
        capture_output=True,
    )
    files = [directory / f"rank{rank}.json" for rank in range(request.param)]
    return {file.stem: json.loads(file.read_text()) if file.exists() else {} for file in files}


@pytest.mark.parametrize("case", [case.__name__ for case in CASES])
def test_every_rank_agrees(outcome: Outcome, case: str) -> None:
    """The case, a function of `ledger_ranks`, holds on every rank."""
    said = {rank: cases.get(case, "did not get that far") for rank, cases in outcome.items()}
    assert not any(said.values()), "\n".join(f"{rank}: {text}" for rank, text in said.items())
