"""`otel-train bridge --check` says what is wrong with a bridge, and what to do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel_train.bridge import Inbox, bridge_check
from otel_train.bridge.bridge_check import Report, check_bridge
from otel_train.bridge.bridge_service import ADDRESS_FILE
from tests.support.commands import run_otel_train
from tests.support.otlp_http import Response, http_server
from tests.support.ports import free_port
from tests.support.step_requests import step_request

ANY = "127.0.0.1:0"
MAX_BYTES = 2**32


def ask(running: Any, **options: Any) -> Report:
    """Check the ports of a running bridge."""
    given = {"listen": running.address, "http_listen": running.bridge.http_address, "max_bytes": MAX_BYTES} | options
    return check_bridge(**given)


def test_running_bridge_is_well(start: Callable[..., Any]) -> None:
    """Both ports serve, whether they are given or read from the state; nothing does once the bridge is stopped."""
    running = start(http_listen=ANY)
    addresses = [running.address, running.bridge.http_address]
    for report in (ask(running), ask(running, listen="", http_listen="", state=running.state)):
        assert (report.exit_code, report.serves, report.notes) == (0, addresses, [])
    running.stop()
    (line,) = ask(running, state=running.state).broken
    assert "no bridge runs on" in line


@pytest.mark.parametrize(
    ("token", "exit_code", "text"), [("s3cret", 0, ""), ("", 0, "asks for a token"), ("other", 3, "has another token")]
)
def test_token_is_tried(start: Callable[..., Any], token: str, exit_code: int, text: str) -> None:
    """A wrong token is a trouble; that one is asked for is a note, as a health check needs none."""
    report = ask(start(http_listen=ANY, token="s3cret"), token=token)
    assert report.exit_code == exit_code
    assert [text in line for line in report.troubled + report.notes] == ([True, True] if text else [])


def test_missing_tls_is_named(start: Callable[..., Any], tls_files: dict[str, Path]) -> None:
    """A port with TLS that is asked without it, and the reverse, are told apart from a port without a bridge."""
    running = start(http_listen=ANY, **tls_files)
    assert ask(running, tls=True).exit_code == 0
    assert [line.partition(";")[2] for line in ask(running).broken] == [
        " give --tls-certificate as the bridge has it"
    ] * 2


def test_foreign_program_is_named(start: Callable[..., Any]) -> None:
    """Another program at a bridge's port, and the bridge's other port, are named as what they are."""
    running = start(http_listen=ANY)
    swapped = ask(running, listen=running.bridge.http_address, http_listen=running.address)
    assert ["does not speak" in line or "says" in line for line in swapped.broken] == [True, True]
    with http_server(lambda _: Response()) as server:
        (line,) = ask(running, http_listen=f"127.0.0.1:{server.server_port}").broken
    assert "another program than a bridge" in line


def test_optional_http_is_noted(start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """That nothing listens at HTTP's standard port is a note; where the port is given, it is an error."""
    running, absent = start(), f"127.0.0.1:{free_port()}"
    monkeypatch.setattr(bridge_check, "default_http", lambda _: absent)
    assert [absent in line for line in ask(running, http_listen="").notes] == [True]
    assert [absent in line for line in ask(running, http_listen=absent).broken] == [True]


@pytest.mark.parametrize("address", ["4317", "http://127.0.0.1:4317", "localhost"])
def test_wrong_address_is_refused(address: str) -> None:
    """What is no address is called that, and not an address where nothing listens."""
    for options in ("--listen", "--http-listen"):
        answer = run_otel_train("bridge", "--check", options, address)
        assert (answer.returncode, "must be host:port" in answer.stderr) == (2, True)


@pytest.mark.parametrize(
    ("files", "text"),
    [((), "is no bridge's state"), (("inbox",), "no bridge runs on"), (("inbox", ADDRESS_FILE), "nothing listens")],
    ids=["empty", "never started", "killed"],
)
def test_wrong_state_is_named(tmp_path: Path, files: tuple[str, ...], text: str) -> None:
    """A directory of something else, and that of a bridge that does not run or was killed, are told apart."""
    if "inbox" in files:
        Inbox(tmp_path).close()
    if ADDRESS_FILE in files:
        (tmp_path / ADDRESS_FILE).write_text(f"127.0.0.1:{free_port()}\n")
    report = check_bridge("", "", state=tmp_path, max_bytes=MAX_BYTES)
    assert report.exit_code == 1
    assert [text in line for line in report.broken] == [True]


def test_other_bridges_state_is_named(start: Callable[..., Any]) -> None:
    """An address that is not that of the state's bridge is a trouble, though that one serves."""
    running = start()
    report = check_bridge("127.0.0.1:1", "", state=running.state, max_bytes=MAX_BYTES)
    assert (report.exit_code, report.serves) == (3, [running.address])


@pytest.mark.parametrize(
    ("bound", "value", "text"),
    [
        ("LEAST_FREE_BYTES", 2**60, "make room"),
        ("OLD_BACKLOG_SECONDS", 0.0, "1 steps have no row"),
        ("FULL_SHARE", 0.0, "--max-bytes"),
    ],
)
def test_state_tells_trouble(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, bound: str, value: float, text: str
) -> None:
    """A full disk, rows that wandb does not take and a full inbox are named, one line each; the bridge serves."""
    running = start(settle=3600)
    running.send(step_request(1, {"loss": 0.5}, counted=False))
    monkeypatch.setattr(bridge_check, bound, value)
    time.sleep(0.01)
    report = ask(running, http_listen="off", state=running.state)
    assert report.exit_code == 3
    assert [text in line for line in report.troubled] == [True]


def test_recent_warning_is_told(start: Callable[..., Any]) -> None:
    """The newest warning of the bridge's log is a note; nothing is wrong for that."""
    running = start()
    request = step_request(1, {"n" * 600: 1.0})
    running.send(request)
    report = ask(running, http_listen="off", state=running.state)
    assert (report.exit_code, ["points are refused" in line for line in report.notes]) == (0, [True])
    running.stop()
    assert logging.getLogger("otel_train.bridge").handlers == []


def test_command_prints_lines(start: Callable[..., Any]) -> None:
    """`--check` prints a line for each finding, and its exit code says whether the bridge serves."""
    address = f"127.0.0.1:{free_port()}"
    answer = run_otel_train("bridge", "--check", "--listen", address)
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert f"no bridge serves at {address}" in answer.stderr
    running = start()
    answer = run_otel_train("bridge", "--check", "--state", running.state)
    assert (answer.returncode, answer.stdout) == (0, f"the bridge at {running.address} serves\n")
