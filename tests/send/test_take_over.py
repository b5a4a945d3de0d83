"""`send` where a sidecar serves the directory whose own receiver takes nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from otel_train.catalogue import cluster_name, rows
from otel_train.delivery import read_status
from otel_train.ring import Kind, RingReader, is_alive, lock_holder, ring_files, start_time
from otel_train.send.serving_process import EMPTY_REQUEST
from otel_train.sidecar import Sidecar
from otel_train.testing import OtlpReceiver
from tests.support.otlp_http import Response, serving_http
from tests.support.ports import free_port
from tests.support.rank_ring import Rank
from tests.support.send_command import begin, end, interrupted, send
from tests.support.torchrun import run_torchrun, script
from tests.support.waiting import wait_until

PICKS = cluster_name(rows.PICKS.name)
USER = 23003


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a port where nothing listens, which the environment names."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{(port := free_port())}")
    return f"127.0.0.1:{port}"


@contextmanager
def stuck_sidecar(run: Path, receiver: str) -> Iterator[threading.Thread]:
    """Run a sidecar whose session is over in a thread, from the time at which its receiver is known to take nothing."""
    sidecar = Sidecar(run, session=lambda: False)
    thread = threading.Thread(target=sidecar.run)
    thread.start()
    try:
        wait_until(lambda: (status := read_status(run)) is not None and status.failing, what=f"a try of {receiver}")
        yield thread
    finally:
        sidecar.stop()
        thread.join(60)
        assert not thread.is_alive(), f"the sidecar of {run} has not ended"


@pytest.fixture
def stuck(rank: Rank, nobody: str, tmp_path: Path) -> Iterator[threading.Thread]:
    """Return the thread of a sidecar that can't deliver what a rank has left that has ended."""
    rank.record(1)
    rank.ring.close(1, 0)
    with stuck_sidecar(tmp_path, nobody) as thread:
        yield thread


def test_stuck_sidecar_makes_way(tmp_path: Path, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the ranks have ended, their sidecar leaves what it can't deliver to a send: each step arrives once."""
    run = tmp_path / "run"

    def train() -> None:
        import torch.distributed as dist

        import otel_train

        dist.init_process_group("gloo")
        telemetry = otel_train.init()
        for step in range(1, 41):
            telemetry.step(step, {"loss": float(step)})
        telemetry.close()
        dist.destroy_process_group()

    endpoint = f"http://{nobody}"
    run_torchrun(
        2,
        script(tmp_path, train),
        OTEL_TRAIN_RING_DIR=str(run),
        OTEL_TRAIN_SIDECAR="embedded",
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
    )
    wait_until(lambda: lock_holder(run) > 0)
    sidecar = lock_holder(run), start_time(lock_holder(run))
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{receiver.address}")
        outcome = send(run)
        with suppress(ProcessLookupError):  # the pause in which it leaves the lock to others may be over
            os.kill(sidecar[0], signal.SIGUSR1)
        wait_until(lambda: not is_alive(*sidecar), what="the sidecar's end")
        with closing(RingReader(ring_files(run)[0])) as reader:
            steps = [record.step for record in reader.read(0, 1000)[0] if record.kind is Kind.CLUSTER]
        assert steps
        assert receiver.values(cluster_name("loss")) == steps
    (figures,) = outcome.figures["directories"]
    assert (outcome.code, figures["by"], figures["runs"][0]["left"]) == (0, "send", 0), outcome.errors
    assert f"(pid {sidecar[0]}); it is waited for" in outcome.errors


def test_sidecar_comes_back(stuck: threading.Thread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar that has made way for a send whose receiver takes no record goes on, for it tries longer."""
    tried = threading.Event()

    def respond(body: bytes) -> Response:
        if len(body) <= len(EMPTY_REQUEST):
            return Response()
        tried.set()
        return Response(503)

    with serving_http(monkeypatch, respond):
        sending = begin("--timeout", "1000", tmp_path)
        assert tried.wait(60)
        wait_until(lambda: lock_holder(tmp_path) == os.getpid() or not stuck.is_alive())
        assert stuck.is_alive()
        sending.terminate()
        assert "HTTP 503" in end(sending).figures["directories"][0]["reason"]


@pytest.mark.usefixtures("stuck")
def test_failing_receiver_takes_nothing_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A send whose own receiver fails leaves the directory to the sidecar, and says why."""
    outcome = interrupted(tmp_path, monkeypatch)
    assert "takes nothing either (HTTP 503" in outcome.figures["directories"][0]["reason"]
    assert ("make way" in outcome.errors, lock_holder(tmp_path)) == (False, os.getpid())


def test_training_jobs_sidecar_is_named(
    rank: Rank, nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a rank goes on, a send takes nothing over, and names the sidecar, where that sends to and what to do."""
    rank.record(1)
    with stuck_sidecar(tmp_path, nobody), OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{receiver.address}")
        outcome = send("--timeout", "10", tmp_path)
    reason = outcome.figures["directories"][0]["reason"]
    assert (outcome.code, receiver.points) == (1, [])
    assert f"another send (pid {os.getpid()}): {nobody} (gRPC) does not take what is recorded" in reason
    assert f"run this again when the job has ended, or end that sidecar, `kill {os.getpid()}`" in reason


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_takes_over_as_owner(base: Path, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's send has a user's sidecar make way with that user's rights."""
    rank = Rank(base)
    rank.record(1)
    rank.ring.close(1, 0)
    with stuck_sidecar(base, nobody), OtlpReceiver() as receiver:
        for path in (base, *base.iterdir()):
            os.chown(path, USER, USER)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{receiver.address}")
        outcome = send(base)
    assert (outcome.code, receiver.values(PICKS)) == (0, [1])
    assert f"process that serves {base} is asked to make way" in outcome.errors
