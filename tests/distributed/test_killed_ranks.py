"""What has landed is in the ring without another call of the user's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otel_train.ring import Kind, RingReader, ring_files
from tests.distributed.killed_ranks import STEPS
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_killed_rank_has_recorded_the_last_row(number: signal.Signals, tmp_path: Path) -> None:
    """Its peer came to the last step after it; launchers kill a rank a moment after another one has ended."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OTEL_TRAIN_SIDECAR": "external"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    command = [sys.executable, str(Path(__file__).with_name("killed_ranks.py")), str(tmp_path), number.name]
    ranks = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}) for rank in range(2)]
    try:
        assert ranks[0].wait(120) == -number
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    reader = RingReader(ring_files(tmp_path)[0])
    cluster = [record for record in reader.read(0, 100)[0] if record.kind is Kind.CLUSTER]
    losses = {record.step: reader.layout.by_key(*reader.layout.split(record.values))["loss"] for record in cluster}
    assert losses == {step: 5.5 * step for step in range(1, STEPS + 1)}
