"""What a rank says, and does not wait for, when nothing that it records can be delivered."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import otel_train
from otel_train.otlp.protocol import OtlpProtocol
from otel_train.ring import is_served, lock_holder
from tests.support.ports import free_port
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def unnamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Name no receiver, and end the sidecar, which would look for one for an hour."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    yield
    if holder := lock_holder(tmp_path):
        os.kill(holder, signal.SIGKILL)


@pytest.fixture
def default_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return a free port, which stands for the standard's default one."""
    port = free_port()
    monkeypatch.setattr(OtlpProtocol, "default_port", port)
    return port


@pytest.mark.usefixtures("default_port")
def test_no_receiver_starts_no_sidecar(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a named endpoint and a listener no sidecar starts and nothing waits; one line says so, and how to look
    at the job, also to whoever has set up no logging.
    """
    began = time.monotonic()
    with otel_train.init(ring_dir=tmp_path, close_timeout=40.0) as telemetry:
        telemetry.step(1, {"loss": 1.0})
        assert not telemetry.flush(40.0)
    assert time.monotonic() - began < 40.0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".ring"]
    [record] = caplog.records
    assert "nothing is sent; `otel-train top` shows this job" in record.message
    assert record.levelno == logging.WARNING


def test_default_address_is_used(default_port: int, tmp_path: Path) -> None:
    """A receiver that listens at the default address gets the values without being named."""
    with (
        socket.create_server(("localhost", default_port)),
        otel_train.init(ring_dir=tmp_path, close_timeout=0.0) as telemetry,
    ):
        telemetry.step(1, {"loss": 1.0})
        wait_until(lambda: is_served(tmp_path))


def test_undelivered_values_warn_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that refuses is one warning while the job runs, with the address and the cause."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{(port := free_port())}")
    with otel_train.init(ring_dir=tmp_path, close_timeout=0.0) as telemetry:
        telemetry.step(1, {"loss": 1.0})
        wait_until(lambda: bool(caplog.records))
        time.sleep(1.5)  # in which it is looked at again
    line, remains = caplog.messages
    assert f"127.0.0.1:{port}" in line
    assert "does not take what is recorded" in line
    assert "1 records are not acknowledged yet" in remains
