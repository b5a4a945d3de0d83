"""Telemetry over a part of the ranks, and over several groups at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from otel_train.ring import Kind, RingReader, ring_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the ranks once and return where they wrote."""
    directory = tmp_path_factory.mktemp("groups")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    command += [str(Path(__file__).with_name("group_ranks.py")), str(directory)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OTEL_TRAIN_SIDECAR": "external"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return directory


def test_peers_that_see_the_same_data_count_once(out: Path) -> None:
    """Over the data dimension of a mesh the sums and means are those of its two data ranks, on every rank."""
    for rank in range(4):
        said = json.loads((out / f"rank{rank}.json").read_text())
        assert [step[:2] for step in said] == [[11, 0.5], [11, 0.5]]


def test_two_sessions_of_a_process_do_not_meet(out: Path) -> None:
    """A second session over all ranks has its own group, attempt, rings and values."""
    said = [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(4)]
    assert [[step[2] for step in each] for each in said] == [[1111, 1111]] * 4
    identities = {RingReader(path).identity.attempt for name in ("mesh", "all") for path in ring_files(out / name)}
    assert len(ring_files(out / "all")) == 4
    assert len(identities) == 3  # the two groups of the mesh agree on their own


def test_the_clusters_values_are_written_by_rank_0_alone(out: Path) -> None:
    """The other group along the tensor dimension writes its ranks' own values only."""
    readers = [RingReader(path) for path in ring_files(out / "mesh")]
    writers = [
        reader.identity.rank
        for reader in readers
        if any(record.kind is Kind.CLUSTER for record in reader.read(0, 100)[0])
    ]
    assert writers == [0]
