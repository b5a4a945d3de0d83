"""The end of a rank: what has landed is in the ring, and nobody waits for a peer that goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from otel_train.ring import Kind, RingReader, ring_files
from tests.distributed.killed_ranks import STEPS
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]


@contextmanager
def two_ranks(script: str, *arguments: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run two ranks, which nobody ends when one of them has ended."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OTEL_TRAIN_SIDECAR": "external"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    ranks = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}) for rank in range(2)]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_killed_rank_has_recorded_the_last_row(number: signal.Signals, tmp_path: Path) -> None:
    """Its peer came to the last step after it; launchers kill a rank a moment after another one has ended."""
    with two_ranks("killed_ranks.py", str(tmp_path), number.name) as ranks:
        assert ranks[0].wait(120) == -number
    reader = RingReader(ring_files(tmp_path)[0])
    cluster = [record for record in reader.read(0, 100)[0] if record.kind is Kind.CLUSTER]
    losses = {record.step: reader.layout.by_key(*reader.layout.split(record.values))["loss"] for record in cluster}
    assert losses == {step: 5.5 * step for step in range(1, STEPS + 1)}


def test_a_rank_that_closes_early_ends_at_once(tmp_path: Path) -> None:
    """Gloo's destructor would wait for rank 0, which goes on long after, and records its own steps."""
    with two_ranks("leaving_ranks.py", str(tmp_path)) as ranks:
        assert ranks[1].wait(60) == 0
        (tmp_path / "ended").touch()
        assert ranks[0].wait(60) == 0
    records = RingReader(ring_files(tmp_path / "rings")[0]).read(0, 100)[0]
    assert [record.step for record in records if record.kind is Kind.RANK] == [1, 2, 3, 4]
    assert [record.step for record in records if record.kind is Kind.CLUSTER] == [1, 2, 3]
