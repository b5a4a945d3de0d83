"""Ranks with another number of batches: DDP's `join()`, over two epochs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from otel_train.ring import Kind, RingReader, ring_files
from tests.distributed.uneven_ranks import LONG, SHORT

ROOT = Path(__file__).parents[2]
MISSED = {epoch * LONG + batch for epoch in (0, 1) for batch in range(SHORT + 1, LONG + 1)}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the two ranks once."""
    out = tmp_path_factory.mktemp("uneven")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(Path(__file__).with_name("uneven_ranks.py")), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OTEL_TRAIN_SIDECAR": "external"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return out


def column(out: Path, key: str) -> dict[int, float]:
    """Return a value over the cluster by step."""
    reader = RingReader(ring_files(out / "rings")[0])
    records = [record for record in reader.read(0, 1000)[0] if record.kind is Kind.CLUSTER]
    assert [record.step for record in records] == sorted(record.step for record in records)
    return {record.step: reader.layout.by_key(*reader.layout.split(record.values))[key] for record in records}


def test_every_step_has_the_values_of_the_ranks_that_made_it(out: Path) -> None:
    """Those that rank 1 did not make are rank 0's alone, and in the second epoch both are there again."""
    steps = range(1, 2 * LONG + 1)
    assert column(out, "loss") == {step: step * (1.0 if step in MISSED else 5.5) for step in steps}
    assert column(out, "stream_mixing/picks") == {step: 1.0 if step in MISSED else 2.0 for step in steps}
    assert column(out, "train/ranks") == {step: 1.0 if step in MISSED else 2.0 for step in steps}


def test_the_longer_rank_waits_once_and_says_for_whom(out: Path) -> None:
    """Not at each step, and not for the ten seconds of a reduction that is lost."""
    seconds = json.loads((out / "rank0.json").read_text())
    assert sum(each > 0.5 for each in seconds) <= 2  # once in each epoch
    log = (out / "rank0.log").read_text()
    assert (log.count("rank 1 takes no part in the reduction of step 26"), log.count("\n")) == (1, 1)
