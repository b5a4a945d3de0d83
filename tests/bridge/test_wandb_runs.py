"""A row counts as delivered when wandb has it durably, and then never comes again."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from otel_train.bridge import Inbox, read_run, wandb_files
from otel_train.bridge.wandb_processes import writing_processes
from otel_train.bridge.wandb_rows import STEP_KEY
from tests.support.bridge_processes import BridgeProcess
from tests.support.mounts import small_disk
from tests.support.step_requests import step_request
from tests.support.waiting import wait_until


def steps(state: Path) -> list[int]:
    """Return the steps of the run's rows, over all of its files."""
    return [row.values[STEP_KEY] for row in read_run(state, "run")]


@pytest.mark.parametrize("victim", [pytest.param("bridge", marks=pytest.mark.faults), "wandb"])
def test_unflushed_rows_are_written_again(tmp_path: Path, victim: str) -> None:
    """Rows that wandb had and did not flush are written again after a kill with -9."""
    with BridgeProcess(tmp_path) as bridge:
        bridge.send(step_request(1))
        bridge.wait(1)
        bridge.send(step_request(2))
        if victim == "bridge":
            bridge.kill()
            bridge.start()
        else:
            bridge.kill_wandb()
        bridge.send(step_request(3))
        bridge.wait(3)
        assert bridge.stop() == 0
    assert steps(bridge.state) == [1, 2, 3]
    assert len(wandb_files(bridge.state, "run")) == 2


def test_rows_in_file_stay_single(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is in the file and not marked as delivered, as after a kill, is not written again."""
    bridge = start()
    bridge.send(step_request(1))
    bridge.wait(1)
    with monkeypatch.context() as forgetting:
        forgetting.setattr(Inbox, "mark_delivered", lambda *_: (0, 0))
        bridge.send(step_request(2))
        wait_until(lambda: len(steps(bridge.state)) == 2, 30, "the row in the file")
        bridge.stop()
    bridge = start()
    bridge.send(step_request(3))
    bridge.wait(3)
    bridge.stop()
    assert steps(bridge.state) == [1, 2, 3]


@pytest.mark.faults
def test_hanging_wandb_is_replaced(monkeypatch: pytest.MonkeyPatch, start: Any) -> None:
    """A process of wandb's that hangs is killed, and all rows go to a new one."""
    monkeypatch.setattr("otel_train.bridge.row_writer.STUCK_SECONDS", 3.0)
    monkeypatch.setattr("otel_train.bridge.wandb_sink.OFFLINE_PATIENCE", 2.0)
    bridge = start()
    bridge.send(step_request(1))
    bridge.wait(1)
    (pid,) = writing_processes(bridge.state / "wandb")
    os.kill(pid, signal.SIGSTOP)
    bridge.send(step_request(2), step_request(3))
    bridge.wait(3)
    assert pid not in writing_processes(bridge.state / "wandb")
    bridge.stop()
    assert steps(bridge.state) == [1, 2, 3]


@pytest.mark.faults
def test_full_disk_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """With a full disk the bridge does not acknowledge, so that a sender repeats until there is room."""
    with small_disk(tmp_path / "disk", "64m") as disk, BridgeProcess(disk.folder) as bridge:
        bridge.send(*(step_request(step) for step in range(1, 11)))
        disk.fill()
        sender = threading.Thread(target=bridge.send, args=[step_request(step) for step in range(11, 101)])
        sender.start()
        wait_until(lambda: "refuses points" in bridge.log.read_text(), 60, "a refused request")
        disk.clear()
        sender.join()
        bridge.wait(100)
        assert bridge.stop() == 0
        assert steps(bridge.state) == list(range(1, 101))


@pytest.mark.faults
def test_failed_rows_are_written_again(tmp_path: Path) -> None:
    """Rows that wandb dropped on a full disk, silently and also with room again, are written again."""
    (tmp_path / "state").mkdir(mode=0o700)
    with small_disk(tmp_path / "state" / "wandb", "64m") as disk, BridgeProcess(tmp_path) as bridge:
        bridge.send(*(step_request(step) for step in range(1, 11)))
        bridge.wait(10)
        disk.fill()
        bridge.send(*(step_request(step, {"loss": 0.5}) for step in range(11, 101)))
        wait_until(lambda: "become durable" in bridge.log.read_text(), 90, "the missing rows' discovery")
        disk.clear()
        bridge.wait(100)
        assert bridge.stop() == 0
        assert steps(bridge.state) == list(range(1, 101))
        assert len(wandb_files(bridge.state, "run")) > 1
