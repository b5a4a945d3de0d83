"""The records of a rank that was killed arrive all the same."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from otel_train.bridge import Bridge, BridgeConfig, delivered_steps, read_run
from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.ring import Kind, RingReader, is_alive, ring_files
from otel_train.smoke.child_process import running_process
from otel_train.trainer import find_config
from tests.support.environment import clean_environment
from tests.support.torchrun import torchrun
from tests.support.waiting import wait_until


@pytest.mark.e2e
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_ranks_records_arrive(victim: int, tmp_path: Path) -> None:
    """The sidecar outlives the ranks and sends all that the ring holds, the last record included."""
    rings, log = tmp_path / "rings", tmp_path / "train.log"

    def recorded() -> int:
        records, _, _ = RingReader(ring_files(rings)[0]).read(0, sys.maxsize)
        return sum(record.kind is Kind.CLUSTER for record in records)

    def is_sent(path: Path) -> bool:
        reader = RingReader(path)
        return reader.cursor.position == reader.progress.written

    with Bridge(BridgeConfig(state=tmp_path / "bridge", listen="127.0.0.1:0")) as bridge:
        environment = clean_environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{bridge.address}",
            OTEL_TRAIN_RING_DIR=str(rings),
            OTEL_TRAIN_RUN_ID="killed",
        )
        command = torchrun(2, "-m", "otel_train.trainer", "--config", find_config("healthy"), "--steps", 100000)
        with running_process(command, log, environment) as job:
            wait_until(lambda: len(ring_files(rings)) == 2 and recorded() >= 20, 90, log=log)
            reader = RingReader(ring_files(rings)[victim])
            os.kill(reader.header.pid, signal.SIGKILL)
            job.wait(120)
        wait_until(lambda: all(map(is_sent, ring_files(rings))), 90, log=rings / "sidecar.log")
        count = recorded()
        wait_until(lambda: delivered_steps(tmp_path / "bridge", "killed") == count, 90)
    arrived = [row.values[STEP_KEY] for row in read_run(tmp_path / "bridge", "killed")]
    assert not is_alive(reader.header.pid, reader.header.pid_start)
    assert count >= 20
    assert arrived == list(range(1, count + 1))
