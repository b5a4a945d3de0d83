"""A run whose job has failed is one that has failed in wandb too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from otel_train.bridge import Inbox, wandb_files
from otel_train.bridge.decode import decode
from otel_train.bridge.failed_attempts import FailedAttempts
from otel_train.bridge.upload import read_segment
from otel_train.catalogue import rows
from otel_train.ring import is_served
from tests.support.bridge_processes import BridgeProcess
from tests.support.commands import run_otel_train
from tests.support.step_requests import numbered_points, step_request
from tests.support.waiting import wait_until
from tests.support.wandb_server import FakeWandb

JOB = """
    import os, signal, sys
    import otel_train
    telemetry = otel_train.init(ring_dir=sys.argv[1], run_id="run")
    for step in range(1, 4):
        telemetry.step(step, {"loss": 2.0})
"""


def exit_code(state: Path) -> int:
    """Return the exit code of the run, as wandb recorded it."""
    segment = read_segment(wandb_files(state, "run")[-1])
    assert segment is not None
    assert segment.finished
    return segment.exit_code


@pytest.mark.parametrize(
    ("end", "code"),
    [("", 0), ("telemetry.close()", 0), ("raise OSError", 1), ("os.kill(os.getpid(), signal.SIGKILL)", 1)],
    ids=["end", "close", "exception", "kill"],
)
def test_exit_follows_ranks_end(end: str, code: int, start: Callable[..., Any], tmp_path: Path) -> None:
    """The run's exit code in wandb is 0 where its rank ended well, and 1 where it failed, however it did."""
    bridge, rings = start(), tmp_path / "rings"
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{bridge.address}"}
    job = [sys.executable, "-c", dedent(JOB) + end, str(rings)]
    subprocess.run(job, env=environment, timeout=120, check=False)
    bridge.wait(3)
    wait_until(lambda: not is_served(rings), 30, "the sidecar's end")
    bridge.stop()
    assert exit_code(tmp_path / "state") == code


def failure(rank: int, attempt: int, kind: str = "gauge", value: int = 1) -> Any:
    """Return a request that says of a rank that it has failed, or has not."""
    request = step_request(1, rank=rank, attempt=attempt)
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    point = getattr(metrics.add(name=rows.SESSION_FAILED.name), kind).data_points.add(time_unix_nano=1)
    if kind == "gauge":
        point.as_int = value
    return request


def test_any_rank_tells_failure() -> None:
    """Each rank may tell of its failure, though only rank 0's other values are for wandb."""
    decoded = decode(failure(3, 2))
    assert (decoded.points, decoded.rejected, decoded.failed) == ((), 0, frozenset({("run", 2)}))
    assert decode(failure(0, 2)).failed == {("run", 2)}


@pytest.mark.parametrize(("kind", "value"), [("gauge", 0), ("histogram", 1)])
def test_other_points_tell_none(kind: str, value: int) -> None:
    """A 0, and a point without a number, tell of no failure."""
    assert decode(failure(3, 2, kind, value)).failed == frozenset()


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_server_hears_of_failure(mode: str, server: FakeWandb, tmp_path: Path) -> None:
    """The server has the run as failed, whether its rows go there at once or from a file."""
    with BridgeProcess(tmp_path, "--wandb-mode", mode, environment=server.environment) as bridge:
        bridge.send(step_request(1, {"loss": 0.5}), failure(1, 1))
        bridge.wait(1)
        assert bridge.stop() == 0
    if mode == "offline":
        assert run_otel_train("sync", bridge.state, **server.environment).returncode == 0
    assert (server.steps("run"), server.exit_code("run")) == ([1], 1)


def test_next_attempt_may_succeed(inbox: Inbox) -> None:
    """A run has failed as long as no attempt follows the one of which a rank has, whenever that is told."""
    inbox.add(numbered_points(1), 0)
    inbox.failed_attempts.note([("run", 1)])
    assert "run" in inbox.failed_attempts
    assert "other" not in inbox.failed_attempts
    inbox.add(numbered_points(1, attempt=2), 0)
    inbox.failed_attempts.note([("run", 1)])
    assert "run" not in inbox.failed_attempts
    inbox.failed_attempts.note([("run", 2), ("run", 1)])
    assert "run" in inbox.failed_attempts


def test_failures_are_bounded(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the runs that have failed only so many are remembered, the latest ones."""
    monkeypatch.setattr("otel_train.bridge.failed_attempts.MOST_RUNS", 2)
    failed = FailedAttempts(inbox.store)
    failed.note([("a", 1), ("b", 1), ("a", 1), ("c", 1)])
    assert ["a" in failed, "b" in failed, "c" in failed] == [True, False, True]
