"""How long a sidecar lives, and which one serves a directory that several sessions use."""

from __future__ import annotations

import logging
import math
import os
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from otel_train.catalogue import cluster_name, rows
from otel_train.exceptions import ConfigurationError
from otel_train.ring import (
    Identity,
    RingWriter,
    SidecarEnd,
    ask_for_turn,
    default_base,
    directory,
    is_alive,
    is_served,
    retention,
    ring_files,
    ring_path,
    start_time,
    take_lock,
    withdraw,
)
from otel_train.sidecar import Sidecar, service
from otel_train.sidecar.sender import Sender
from otel_train.step.sidecar_process import SidecarProcess
from otel_train.testing import OtlpReceiver
from tests.support.ports import free_port
from tests.support.rank_ring import SCHEMA, Rank
from tests.support.waiting import wait_until

PICKS = cluster_name(rows.PICKS.name)


def test_sidecar_leaves_after_delivery(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A sidecar leaves when its session is closed and sent, though the rank's process lives on, as in a notebook."""
    with closing(SidecarProcess(tmp_path, 0.0)) as process:
        rank.record(1)
        wait_until(lambda: process.pid > 0, what="a sidecar's beginning")
        sidecar = process.pid, start_time(process.pid)
    rank.record(2)
    assert is_alive(*sidecar)  # the ring is open
    rank.ring.close(2, 0)
    wait_until(lambda: not is_alive(*sidecar))
    assert receiver.values(PICKS) == [1, 3]


def test_sessions_share_one_sidecar(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """Of several sessions in a directory one has a sidecar; when it leaves, another one takes its turn."""
    ranks = [Rank(tmp_path, number) for number in range(3)]
    processes = [SidecarProcess(tmp_path, 0.0) for _ in ranks]
    waiting = list(processes)
    wait_until(lambda: sum(process.connected for process in processes) == 1, what="one sidecar")
    (serving,) = [process for process in waiting if process.connected]
    waiting.remove(serving)
    serving.close()
    wait_until(lambda: any(process.connected for process in waiting), what="another one's turn")
    for rank in ranks:
        rank.record(1)
        wait_until(rank.acknowledged)
        rank.ring.close(1, 0)
    for process in waiting:
        process.close()
    wait_until(lambda: not is_served(tmp_path))
    assert receiver.values(PICKS) == [1, 1, 1]


def test_stuck_sidecar_yields_to_session(
    receiver: OtlpReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is started again with the right address sends what the one before it could not."""
    rank = Rank(tmp_path)
    with monkeypatch.context() as wrong:
        wrong.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        wrong.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
        with closing(SidecarProcess(tmp_path, 0.0)):
            rank.record(1)
            wait_until(lambda: is_served(tmp_path))
        rank.ring.close(1, 0)
    with closing(SidecarProcess(tmp_path, 0.0)):
        wait_until(lambda: receiver.values(PICKS) == [1], 60)


@pytest.mark.usefixtures("receiver")
def test_late_ring_is_still_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring that is made while a sidecar leaves is sent: its session saw the lock taken, and started no sidecar."""
    ranks: list[Rank] = []
    serve = Sidecar._serve

    def serve_and_be_late(*arguments: Any) -> Any:
        end = serve(*arguments)
        if not ranks:
            ranks.append(Rank(tmp_path))
            ranks[0].record(1)
            ranks[0].ring.close(1, 0)
        return end

    monkeypatch.setattr(Sidecar, "_serve", serve_and_be_late)
    assert Sidecar(tmp_path, session=lambda: False).run() == SidecarEnd.DONE
    assert ranks[0].acknowledged()


def test_cleaned_directory_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar that made way does not come back to a directory that was cleaned meanwhile: a new job has its own."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    first = Rank(tmp_path)
    first.record(1)
    first.ring.close(1, 0)
    sidecar = Sidecar(tmp_path, session=lambda: False)
    thread = threading.Thread(target=sidecar.run)
    thread.start()
    wait_until(lambda: is_served(tmp_path))
    ask_for_turn(tmp_path, claim := f"{os.getpid()} {start_time(os.getpid())}")
    wait_until(lambda: not is_served(tmp_path))
    withdraw(tmp_path, claim)
    for path in tmp_path.iterdir():
        path.unlink()
    Rank(tmp_path, 1).record(1)
    lock = take_lock(tmp_path)
    assert lock is not None
    sidecar.wakeup.set()
    thread.join(30)
    assert not thread.is_alive()
    os.close(lock)


@pytest.mark.usefixtures("receiver")
def test_sidecar_cleans_earlier_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar removes delivered rings of earlier jobs in the default directory, and keeps those of its own job."""
    monkeypatch.setattr(directory, "MEMORY", tmp_path)
    monkeypatch.setattr(retention, "KEPT_SECONDS", -1.0)
    for run in ("one", "two"):
        (default_base() / run).mkdir()
        rank = Rank(default_base() / run)
        rank.record(1)
        rank.ring.close(1, 0)
        Sidecar(default_base() / run, session=lambda: False).run()
        rank.ring.release()
    assert [path.name for path in default_base().iterdir()] == ["two"]
    assert len(ring_files(default_base() / "two")) == 1


def test_later_attempt_restarts_linger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later attempt has the whole linger time, whatever an earlier one has used of it."""
    clock = [0.0]
    looks: list[float] = []
    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(service, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(Sender, "send_all", lambda *_: looks.append(clock[0]))
    thread = threading.Thread(target=Sidecar(tmp_path, session=lambda: False, linger=3600.0).run)
    for number, now in enumerate((0.0, 3000.0, 6000.0)):
        clock[0] = now
        if number < 2:
            rank = Rank(tmp_path, number)
            rank.record(1)
            rank.ring.close(1, 0)
        looks.clear()  # those without the ring
        if not thread.ident:
            thread.start()
        wait_until(lambda: len(looks) > 2 or not thread.is_alive())
    assert thread.is_alive()
    clock[0] = 7000.0
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize(("records", "error", "patient"), [(0, "", False), (1, "", True), (0, "ValueError", True)])
def test_good_end_is_told_briefly(
    records: int, error: str, patient: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only a good end is still to be told, a receiver that is gone is tried for half a minute, no hour."""
    clock, looks = [0.0], [0]

    def fail(*_: object) -> None:
        looks[0] += 1

    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(service, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(Sender, "send_all", fail)
    rank = Rank(tmp_path)
    rank.record(*range(records))
    rank.ring.close(records, 0, error=error)
    thread = threading.Thread(target=Sidecar(tmp_path, session=lambda: False, linger=3600.0).run)
    thread.start()
    for now, lives in ((0.0, True), (service.FAREWELL - 1.0, True), (service.FAREWELL + 1.0, patient), (3700.0, False)):
        clock[0], looks[0] = now, 0
        wait_until(lambda: looks[0] > 3 or not thread.is_alive())
        assert thread.is_alive() is lives
        thread.join(0.0 if lives else 30.0)


@pytest.mark.usefixtures("receiver")
def test_newest_attempts_are_kept(tmp_path: Path) -> None:
    """Of each run that shares a directory the newest attempts' rings are kept."""
    attempts = {1: "one", 2: "two", 3: "one", 4: "three", 5: "one"}
    for attempt, run_id in attempts.items():
        identity = Identity(run_id=run_id, attempt=attempt)
        ring = RingWriter(ring_path(tmp_path, identity), SCHEMA, identity, records=8)
        ring.close(0, 0)
        ring.release()
    Sidecar(tmp_path, session=lambda: False).run()
    assert [path.stem for path in ring_files(tmp_path)] == [f"rank00000-{attempt}" for attempt in (2, 3, 4, 5)]


def test_missing_rings_are_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A sidecar without rings logs what the job has to be given, at once and once more as a warning."""
    monkeypatch.setattr(service, "WAITING", 0.3)
    caplog.set_level(logging.INFO)
    sidecar = Sidecar(tmp_path)
    thread = threading.Thread(target=sidecar.run)
    thread.start()
    wait_until(lambda: len(caplog.records) == 2)
    thread.join(0.5)
    sidecar.stop()
    thread.join(30)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert all(f"OTEL_TRAIN_RING_DIR={tmp_path}" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("option", ["rank_interval", "linger", "grace"])
@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_invalid_seconds_are_refused(option: str, seconds: Any, tmp_path: Path) -> None:
    """A number of seconds that is not finite is an error that names the option; no ring is left out for it."""
    with pytest.raises(ConfigurationError, match=f"sidecar: {option} must be a finite number of seconds"):
        Sidecar(tmp_path, **{option: seconds})
