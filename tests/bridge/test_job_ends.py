"""A run in wandb ends as its job did, and has the job's settings as its config."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from otel_train.bridge import Inbox, wandb_files
from otel_train.bridge.decode import decode
from otel_train.bridge.job_points import SETTING_NAME, SessionEnd, Setting
from otel_train.bridge.jobs import NO_JOB, Job
from otel_train.bridge.run_config import config_of
from otel_train.bridge.upload import Segment, read_segment
from otel_train.catalogue import SETTING_VALUE, rows
from otel_train.native import core
from otel_train.read.wandb import read_state
from otel_train.ring import is_served
from otel_train.sidecar.settings import any_value
from tests.support.bridge_processes import BridgeProcess
from tests.support.commands import run_otel_train
from tests.support.step_requests import SECOND, numbered_points, step_request
from tests.support.waiting import wait_until
from tests.support.wandb_server import FakeWandb

JOB = """
    import os, signal, sys
    import otel_train
    OPTIMIZER = {"lr": 0.1, "name": "adam", "betas": (0.9, 0.95), "clip": None, "extra": {}}
    telemetry = otel_train.init(ring_dir=sys.argv[1], run_id="run", config={"optimizer": OPTIMIZER, "token": "x"})
    for step in range(1, 4):
        telemetry.step(step, {"loss": 2.0})
"""


def last_segment(state: Path) -> Segment:
    """Return the run as wandb recorded it in the file that was finished last."""
    segment = read_segment(wandb_files(state, "run")[-1])
    assert segment is not None
    assert segment.finished
    return segment


@pytest.mark.parametrize(
    ("end", "code", "state"),
    [
        ("", 0, "finished"),
        ("sys.exit(3)", 3, "failed") if core is not None else ("with telemetry: sys.exit(3)", 3, "failed"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "crashed"),
        ("os.kill(os.getpid(), signal.SIGTERM)", *((137, "crashed") if core is None else (143, "preempted"))),
    ],
    ids=["end", "exit", "kill", "term"],
)
def test_run_ends_as_job(end: str, code: int, state: str, start: Callable[..., Any], tmp_path: Path) -> None:
    """The run has its job's exit code and state, and as config what the job's first rank told of it."""
    bridge, rings = start(), tmp_path / "rings"
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{bridge.address}"}
    job = [sys.executable, "-c", dedent(JOB) + end, str(rings)]
    subprocess.run(job, env=environment, timeout=120, check=False, cwd=Path(__file__).parent)
    bridge.wait(3)
    wait_until(lambda: not is_served(rings), 30, "the sidecar's end")
    bridge.stop()
    segment = last_segment(tmp_path / "state")
    assert (segment.end.exit_code, segment.end.is_preempted) == (code, state == "preempted")
    assert read_state(bridge.state, "run").exit_code == (code or None)
    assert segment.end.summary == {"job/state": state, "job/exit_code": code, "job/attempts": 1}
    optimizer = {"lr": 0.1, "name": "adam", "betas": [0.9, 0.95], "clip": None, "extra": {}}
    assert (segment.config["optimizer"], "token" in segment.config) == (optimizer, False)
    assert (segment.config["job"]["world_size"], segment.config["telemetry"]["log_every"]) == (1, 1)
    assert len(segment.config["git"]["commit"]) == 40


def told(rank: int, attempt: int, kind: str = "gauge", code: float = 1) -> Any:
    """Return a request that tells the exit code of a rank."""
    request = step_request(1, rank=rank, attempt=attempt)
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    point = getattr(metrics.add(name=rows.SESSION_FAILED.name), kind).data_points.add(time_unix_nano=1)
    if kind == "gauge":
        point.as_double = code
    return request


def setting(name: str, value: Any, attempt: int = 1, rank: int = 0) -> Any:
    """Return a request with a setting of a job."""
    request = step_request(1, rank=rank, attempt=attempt)
    metric = request.resource_metrics[0].scope_metrics[0].metrics.add(name=SETTING_NAME)
    point = metric.gauge.data_points.add(time_unix_nano=1, as_int=1)
    point.attributes.add(key=rows.SETTING.attribute).value.string_value = name
    point.attributes.add(key=SETTING_VALUE, value=any_value(value))
    return request


@pytest.mark.parametrize(("code", "expected"), [(1, 1), (0, 0), (-9, 137), (256, 1)])
def test_any_rank_tells_end(code: int, expected: int) -> None:
    """Each rank may tell of its end, though only rank 0's other values are for wandb."""
    decoded = decode(told(3, 2, code=code))
    assert (decoded.points, decoded.rejected, decoded.ends) == ((), 0, (SessionEnd("run", 2, False, expected, 1),))
    assert decode(told(0, 2, code=code)).ends == (SessionEnd("run", 2, True, expected, 1),)


@pytest.mark.parametrize(("kind", "code"), [("gauge", math.nan), ("histogram", 1)])
def test_other_points_tell_no_end(kind: str, code: float) -> None:
    """A point without a finite number tells no end."""
    assert decode(told(3, 2, kind, code)).ends == ()


def test_settings_are_checked() -> None:
    """Only the first rank's settings count, and what is no plain value of bounded size is refused, not the others."""
    assert decode(setting("lr", 0.1)).settings == (Setting("run", 1, "lr", 0.1),)
    assert decode(setting("lr", 0.1, rank=1)).settings == ()
    assert decode(setting("lr", [{"a": None}, []])).settings == (Setting("run", 1, "lr", [{"a": None}, []]),)
    deep: Any = []
    for _ in range(8):
        deep = [deep]
    values = (math.inf, "x" * 513, [math.nan], ["x" * 509], {"x" * 507: 1}, [1] * 256, deep)
    for name, value in (("", 1), ("x" * 513, 1), *(("lr", value) for value in values)):
        decoded = decode(setting(name, value))
        assert (decoded.settings, decoded.rejected, len(decoded.points)) == ((), 1, 2)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_server_hears_of_end(mode: str, server: FakeWandb, tmp_path: Path) -> None:
    """The server has the run's end and config, whether its rows go there at once or from a file."""
    with BridgeProcess(tmp_path, "--wandb-mode", mode, environment=server.environment) as bridge:
        bridge.send(step_request(1, {"loss": 0.5}), setting("config.lr", 0.1), told(1, 1, code=143))
        bridge.wait(1)
        assert bridge.stop() == 0
    if mode == "offline":
        assert run_otel_train("sync", bridge.state, **server.environment).returncode == 0
    assert (server.steps("run"), server.exit_code("run"), server.is_preempting("run")) == ([1], 143, True)
    assert server.config("run")["lr"] == 0.1
    assert server.summary("run")["job/state"] == "preempted"


def test_end_outlives_bridge(tmp_path: Path) -> None:
    """A job's end is told by the next bridge, whether it came before this one was killed or after it was stopped."""
    with BridgeProcess(tmp_path) as bridge:
        bridge.send(step_request(1, {"loss": 0.5}), setting("config.lr", 0.1))
        bridge.wait(1)
        bridge.send(told(0, 1, code=3))
        bridge.kill()
        bridge.start()
        wait_until(lambda: len(wandb_files(bridge.state, "run")) == 2, 30, "the run")
        bridge.stop()
        segment = last_segment(bridge.state)
        assert (segment.rows, segment.end.exit_code, segment.config) == ((), 3, {"lr": 0.1})
        bridge.start()
        bridge.stop()
        assert len(wandb_files(bridge.state, "run")) == 2


def test_newest_attempt_decides(inbox: Inbox) -> None:
    """The newest attempt's end counts, whenever it is told, and its settings; another rank's good end tells nothing."""
    inbox.add(numbered_points(1), 0)
    inbox.jobs.take([Setting("run", 1, "a", 1)], [SessionEnd("run", 1, True, 1)])
    assert (inbox.jobs["run"].exit_code, inbox.jobs["other"]) == (1, NO_JOB)
    inbox.add(numbered_points(1, attempt=2), 0)
    inbox.jobs.take([], [SessionEnd("run", 1, True, 1)])
    assert inbox.jobs["run"].exit_code is None
    inbox.jobs.take([Setting("run", 2, "b", 2)], [SessionEnd("run", 2, False, 0), SessionEnd("run", 1, True, 1)])
    assert (inbox.jobs["run"].exit_code, inbox.jobs["run"].settings) == (None, {"b": 2})
    inbox.jobs.take([], [SessionEnd("run", 2, True, 0)])
    assert inbox.jobs["run"] == Job({"b": 2}, 0, attempts=2, revision=3)


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ({1: 143, 2: 3, 3: 5}, 3),  # the launcher's SIGTERM to others
        ({1: 3, 31: 137, 32: 137}, 3),  # and its SIGKILL
        ({1: 1, 2: 137}, 137),  # a collective fails where another rank died, seen by one sidecar sooner than by others
        ({1: 137, 40: 1}, 137),
        ({1: 143, 2: 129}, 143),
        ({1: 143, 2: 0}, 0),
    ],
)
def test_cause_counts_before_consequence(ends: dict[int, int], code: int, inbox: Inbox) -> None:
    """Of ranks that end in several ways the cause of the others' counts, in whatever order they are told."""
    for attempt, order in enumerate(permutations(ends.items()), start=1):
        for second, end in order:
            inbox.jobs.take([], [SessionEnd("run", attempt, True, end, second * SECOND)])
        assert inbox.jobs["run"].exit_code == code


def test_mapping_gets_further_parts() -> None:
    """A mapping that is a setting's value may have further parts by name; the setting stays what it was."""
    settings: dict[str, Any] = {"config.a": {}, "config.a.b": 1, "config.c": [{"d": None}]}
    assert config_of(settings) == {"a": {"b": 1}, "c": [{"d": None}]}
    assert settings["config.a"] == {}


def test_settings_of_run_are_bounded(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings beyond a run's most are refused; those that are there may still change."""
    monkeypatch.setattr("otel_train.bridge.jobs.MOST_SETTINGS", 2)
    assert inbox.jobs.take([Setting("run", 1, name, 1) for name in "abc"], []) == 1
    assert inbox.jobs.take([Setting("run", 1, "a", 2)], []) == 0
    assert inbox.jobs["run"].settings == {"a": 2, "b": 1}
