"""A row counts as delivered when wandb has it durably, and then never comes again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_train.bridge import HistoryRow, Inbox, read_history, read_run, wandb_files, writer
from otel_train.bridge.leftovers import _writers, end_writers
from otel_train.bridge.rows import STEP_KEY
from otel_train.bridge.wandb_file import TransactionLog
from tests.bridge.processes import BridgeProcess
from tests.waiting import wait_until


def steps(state: Path) -> list[int]:
    """Return the steps of the run's rows, over all of its files."""
    return [row.values[STEP_KEY] for row in read_run(state, "run")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a directory on a disk of 64 MiB."""
    assert os.getuid() == 0, "a file system is mounted: run this as root"
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("victim", [pytest.param("bridge", marks=pytest.mark.faults), "wandb"])
def test_rows_that_were_not_flushed_are_given_again(requests: Any, tmp_path: Path, victim: str) -> None:
    """Killed with -9 at once after the acknowledgement, when wandb had some rows and flushed fewer."""
    with BridgeProcess(tmp_path) as bridge:
        bridge.send(requests.step(1))
        bridge.wait(1)
        bridge.send(requests.step(2))
        if victim == "bridge":
            bridge.kill()
            bridge.start()
        else:
            bridge.kill_wandb()
        bridge.send(requests.step(3))
        bridge.wait(3)
        assert bridge.stop() == 0
    assert steps(bridge.state) == [1, 2, 3]
    assert len(wandb_files(bridge.state, "run")) == 2


def test_rows_that_are_in_a_file_are_not_given_again(start: Any, requests: Any) -> None:
    """What was flushed and not noted, as after a kill between the two, is found in the file."""
    bridge = start()
    bridge.send(requests.step(1), requests.step(2))
    bridge.wait(2)
    bridge.bridge._inbox._connection.execute("UPDATE steps SET delivered = 0 WHERE ordinal = 1")
    bridge.stop()
    bridge = start()
    bridge.send(requests.step(3))
    bridge.wait(3)
    bridge.stop()
    assert steps(bridge.state) == [1, 2, 3]


def test_nobody_else_writes_to_the_files_of_a_starting_bridge(tmp_path: Path) -> None:
    """A process that has a run's file open for writing is ended; one that reads it stays."""
    path = tmp_path / "run-run.wandb"
    path.touch()
    code = "import sys; file = open(sys.argv[1], sys.argv[2]); print(flush=True); sys.stdin.read()"
    modes = ("ab", "rb")
    writing, reading = (
        subprocess.Popen([sys.executable, "-c", code, str(path), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for mode in modes
    )
    for process in (writing, reading):
        assert process.stdout is not None
        process.stdout.readline()
    end_writers(tmp_path, grace=0)
    assert writing.wait(30) == -signal.SIGKILL
    assert reading.poll() is None
    reading.communicate()


def test_a_file_is_read_on_from_where_it_ended(start: Any, requests: Any) -> None:
    """Each row once, wherever the file ended meanwhile: within a record, a chunk's header, or a block."""
    bridge = start()
    bridge.send(*(requests.step(step, {f"metric{n}": step / 3 for n in range(100)}) for step in range(20)))
    bridge.wait(20)
    bridge.stop()
    (path,) = wandb_files(bridge.state, "run")
    data, whole = path.read_bytes(), list(read_history(path))
    assert len(data) > 2 * 32768
    growing = path.with_name("growing")
    growing.touch()
    found: list[HistoryRow] = []
    with TransactionLog(growing) as log:
        for size in (0, 3, 7, 9, *range(1000, len(data), 997), 32768, 32768 + 5, len(data)):
            growing.write_bytes(data[: max(size, growing.stat().st_size)])
            found += log.rows()
    assert found == whole


@pytest.mark.faults
def test_a_hanging_wandb_is_replaced(monkeypatch: pytest.MonkeyPatch, start: Any, requests: Any) -> None:
    """Its process is stopped, takes nothing and finishes nothing: it is ended, and all rows go to a new one."""
    monkeypatch.setattr(writer, "STUCK_SECONDS", 3.0)
    bridge = start()
    bridge.send(requests.step(1))
    bridge.wait(1)
    bridge.bridge._writer._sink.patience = 2.0
    (pid,) = _writers(bridge.state / "wandb")
    os.kill(pid, signal.SIGSTOP)
    bridge.send(requests.step(2), requests.step(3))
    bridge.wait(3)
    assert pid not in _writers(bridge.state / "wandb")
    bridge.stop()
    assert steps(bridge.state) == [1, 2, 3]


@pytest.mark.faults
def test_a_full_disk_loses_nothing(small_disk: Path, requests: Any) -> None:
    """After its first failed write wandb drops all later rows: with room again they are all there, once.

    What the bridge could not keep it did not acknowledge, so `send` has tried until it could.
    """
    some, more, rest = (
        [requests.step(step, {"loss": 0.5}) for step in range(*bounds)] for bounds in ((1, 11), (11, 61), (61, 301))
    )
    filler = small_disk / "filler"
    with BridgeProcess(small_disk) as bridge:
        bridge.send(*some)
        bridge.wait(10)
        bridge.send(*more)
        with Inbox.open_readonly(bridge.state) as inbox:
            wait_until(lambda: sum(row.ordinal is not None for row in inbox.rows("run")) == 60, 30, "60 rows")
        # wandb has them, and flushes within half a second.
        with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
            while file.write(bytes(65536)):
                pass
        sender = threading.Thread(target=bridge.send, args=rest)
        sender.start()
        wait_until(lambda: "refuses points" in bridge.log.read_text(), 60, "a refused request")
        filler.unlink()
        sender.join()
        bridge.wait(300)
        assert bridge.stop() == 0
    assert len(wandb_files(bridge.state, "run")) > 1, "wandb's file did not meet the full disk"
    assert sorted(steps(bridge.state)) == list(range(1, 301))
