"""The bridge from gRPC to wandb's files, with nothing in between replaced."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub

from otel_train.bridge import Bridge, BridgeConfig, BridgeError, InboxReader, delivered_steps, read_run, wandb_files
from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.catalogue import ATTEMPT_KEY, PARTIAL_KEY, rows
from otel_train.exceptions import ConfigurationError
from tests.support.running_bridge import RunningBridge
from tests.support.step_requests import split_request, step_request
from tests.support.waiting import wait_until


def test_history_equals_sent_steps(start: Any) -> None:
    """Retried, split and resumed steps are one history row each, with exact values, under the steps' own times."""
    bridge = start()
    bridge.send(step_request(1, {"train/loss": 0.1 + 0.2}, {f"{rows.TOKENS.name}|code": 5}))
    bridge.send(*split_request(step_request(2, {"train/loss": math.nan}, {f"{rows.TOKENS.name}|code": 2**53 + 3})))
    bridge.send(*[step_request(3, {"train/loss": -math.inf})] * 3)
    bridge.send(step_request(1, {"train/loss": 1.0}, attempt=2))
    bridge.wait(4)
    bridge.stop()
    history = read_run(bridge.state, "run")
    tokens = f"{rows.TOKENS.wandb_key}/code"
    assert [row.values.pop(tokens, None) for row in history] == [5, 2**53 - 2, None, None]
    losses = [float(row.values.pop("train/loss")) for row in history]  # wandb writes 1.0 as 1
    assert repr(losses) == repr([0.1 + 0.2, math.nan, -math.inf, 1.0])
    assert [row.values for row in history] == [
        {STEP_KEY: step, ATTEMPT_KEY: attempt} for step, attempt in ((1, 1), (2, 1), (3, 1), (1, 2))
    ]
    assert [row.ordinal for row in history] == [0, 1, 2, 3]
    assert [row.timestamp - 1_790_000_000 for row in history] == [1, 2, 3, 1]


def test_restarted_bridge_goes_on(start: Any) -> None:
    """A bridge that is started again loses nothing and writes nothing twice: neither retried steps nor half a step."""
    first, *rest = split_request(step_request(3, {}, {rows.PICKS.name: 9}))
    bridge = start()
    bridge.send(step_request(1, {}, {rows.PICKS.name: 2}), step_request(2, {}, {rows.PICKS.name: 5}), first)
    bridge.stop()
    bridge = start()
    bridge.send(step_request(2, {}, {rows.PICKS.name: 5}), *rest)
    bridge.wait(3)
    bridge.stop()
    history = read_run(bridge.state, "run")
    assert [(row.ordinal, row.values[STEP_KEY], row.values[rows.PICKS.wandb_key]) for row in history] == [
        (0, 1, 2),
        (1, 2, 3),
        (2, 3, 4),
    ]
    assert len(wandb_files(bridge.state, "run")) == 2


def test_acknowledged_points_are_stored(start: Any) -> None:
    """Another connection reads points as soon as Export has returned, long before their row is due."""
    bridge = start(settle=86400)
    seen = []
    for part in split_request(step_request(1, {"loss": 0.5, "accuracy": 0.25})):
        bridge.send(part)
        with InboxReader.open(bridge.state) as reader:
            seen.append([(row.row.get("loss"), row.row.get("accuracy")) for row in reader.rows("run")])
    assert seen == [[], [(0.5, None)], [(0.5, 0.25)], [(0.5, 0.25)]]


def test_incomplete_step_is_marked(start: Any) -> None:
    """A step without the number of its points is written after the settle time."""
    bridge = start(settle=0.1)
    bridge.send(step_request(1, {"loss": 0.5}, counted=False))
    bridge.wait(1)
    bridge.stop()
    assert [row.values[PARTIAL_KEY] for row in read_run(bridge.state, "run")] == [1]


@pytest.mark.parametrize("run_id", ["../../escaped", "/etc/x", "a b\n<script>", "é" * 300])
def test_run_id_stays_inside_state(start: Any, run_id: str, tmp_path: Path) -> None:
    """Whatever a run is called, its files are under STATE/wandb, and it can be read back by its name."""
    bridge = start()
    bridge.send(step_request(1, run_id=run_id), step_request(1, run_id="plain"))
    bridge.wait(1, run_id)
    bridge.stop()
    (path,) = wandb_files(bridge.state, run_id)
    assert re.fullmatch(r"run-[A-Za-z0-9_-]{1,64}\.wandb", path.name)
    assert len(read_run(bridge.state, run_id)) == len(read_run(bridge.state, "plain")) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize(
    "options",
    [
        {"listen": "0.0.0.0:0"},
        {"listen": "4317"},
        {"listen": "http://127.0.0.1:4317"},
        {"listen": "127.0.0.1:99999"},
        {"http_listen": "0.0.0.0:0"},
        {"http_listen": "4318"},
        {"http_listen": "127.0.0.1:4317"},
        {"wandb_mode": "disabled"},
        {"settle": math.nan},
        {"tls_key": "key.pem"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_bad_configuration_is_named(options: dict[str, Any], tmp_path: Path) -> None:
    """Every rule of the configuration has its error, also for listening beyond loopback without token or TLS."""
    with pytest.raises(ConfigurationError, match=f"bridge.{next(iter(options)).partition('_')[0]}"):
        BridgeConfig(state=tmp_path, **options)


def test_taken_address_frees_state(start: Any, tmp_path: Path) -> None:
    """A second bridge on one port is an error, and its state directory is usable again."""
    address = start().address
    for _ in range(2):
        with pytest.raises(BridgeError, match=address):
            Bridge(BridgeConfig(state=tmp_path / "other", listen=address))


def is_sent_to_thread(pid: int, number: signal.Signals) -> bool:
    """Send a signal to a process by its newest thread, and tell whether that was still there."""
    with suppress(ProcessLookupError):
        os.kill(max(int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()), number)
        return True
    return False


@pytest.mark.parametrize(
    ("to_group", "number"), [(True, signal.SIGTERM), (True, signal.SIGINT), (False, signal.SIGTERM)]
)
def test_signal_writes_all_rows(tmp_path: Path, to_group: bool, number: signal.Signals) -> None:
    """A step acknowledged before a signal, to the group or to any thread, is in the file, and the exit code is 0."""
    code = (
        "import sys; from pathlib import Path\n"
        "from otel_train.bridge import BridgeConfig, bridge_service, run_bridge\n"
        "bridge_service.STOP_SECONDS = 25.0  # on a busy machine wandb needs longer than it has\n"
        "sys.exit(run_bridge(BridgeConfig(state=Path(sys.argv[1]), listen='127.0.0.1:0', linger=2)))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], start_new_session=True)
    try:
        wait_until((tmp_path / "address").exists, 60, "the bridge")
        with grpc.insecure_channel((tmp_path / "address").read_text().strip()) as channel:
            stub = MetricsServiceStub(channel)  # type: ignore[no-untyped-call]
            stub.Export(step_request(1, {"loss": 0.5}, number=1), timeout=30)
            wait_until(lambda: delivered_steps(tmp_path, "run") == 1, 60, "the load of wandb")
            stub.Export(step_request(2, {"loss": 0.25}), timeout=30)
        if to_group:  # as Ctrl-C does
            os.killpg(process.pid, number)
        else:  # the system may choose another thread than the main one
            wait_until(lambda: is_sent_to_thread(process.pid, number), what="a thread that takes the signal")
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert [row.values["loss"] for row in read_run(tmp_path, "run")] == [0.5, 0.25]
    assert delivered_steps(tmp_path, "run") == 2
    assert not (tmp_path / "address").exists()


@pytest.mark.parametrize("given", ["state", "./link", "~/state", "outside/../link/below", "moved"])
def test_any_state_path_works(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state path may be relative, lead through links and begin with ~: rows are written there after a chdir too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("real", "outside/deep", "elsewhere", "moved"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "moved" / "wandb").symlink_to(tmp_path / "elsewhere")
    running = RunningBridge(BridgeConfig(state=Path(given), listen="127.0.0.1:0", linger=0))
    monkeypatch.chdir(tmp_path / "outside" / "deep")
    running.send(step_request(1))
    running.wait(1)
    running.stop()
    monkeypatch.chdir(tmp_path)
    assert [row.values[STEP_KEY] for row in read_run(given, "run")] == [1]
    assert delivered_steps(given, "run") == 1


def test_file_has_steps_in_order(start: Callable[..., Any]) -> None:
    """Requests in the order of a collector that was restarted twice become rows in the order of their steps."""
    bridge = start()
    bridge.send(*(step_request(step, {"loss": step / 2}, number=step) for step in (3, 4, 5, 6, 1, 2)))
    bridge.wait(6)
    bridge.stop()
    assert [row.values[STEP_KEY] for row in read_run(bridge.state, "run")] == [1, 2, 3, 4, 5, 6]
