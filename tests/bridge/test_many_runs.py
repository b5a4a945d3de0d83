"""A bridge with more runs than it can have open: each gets its rows, and wandb is opened seldom."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.bridge import Inbox, read_run, wandb_files
from otel_train.bridge.decode import decode
from otel_train.bridge.inbox import SealedRow
from otel_train.bridge.open_runs import MOST_OPEN, OpenRuns, most_open
from otel_train.bridge.row_order import Due
from otel_train.bridge.row_writer import Writer
from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.bridge.wandb_sink import Opened
from tests.support.running_bridge import RunningBridge
from tests.support.step_requests import step_request
from tests.support.waiting import wait_until

STEPS = range(1, 5)


def of_all(runs: Iterable[str], step: int) -> ExportMetricsServiceRequest:
    """Return a step of each run, as a collector sends them."""
    request = ExportMetricsServiceRequest()
    for run_id in runs:
        request.MergeFrom(step_request(step, {"loss": 0.5}, run_id=run_id, number=step))
    return request


def descriptors() -> int:
    """Return how many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def has_rows(bridge: RunningBridge, count: int) -> bool:
    """Tell whether wandb has so many rows of all runs."""
    return bridge.bridge._writer.rows == count


def test_forty_runs_open_once(start: Callable[..., Any]) -> None:
    """Their rows come step by step, interleaved; neither files, threads nor descriptors grow with the rows."""
    runs = [f"run-{number}" for number in range(40)]
    bridge = start()
    before = threading.active_count(), descriptors()
    for step in STEPS:
        bridge.send(of_all(runs, step))
        wait_until(partial(has_rows, bridge, len(runs) * step), 60, "the rows")
    assert threading.active_count() - before[0] <= 20
    assert descriptors() - before[1] <= 3 * len(runs) + 20
    bridge.stop()
    assert {len(wandb_files(bridge.state, run_id)) for run_id in runs} == {1}
    assert all([row.values[STEP_KEY] for row in read_run(bridge.state, run_id)] == [*STEPS] for run_id in runs)


class MemorySink:
    """A sink that keeps rows, at once durable, and counts."""

    patience = 30.0

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()
        self.rows: list[tuple[str, int]] = []
        self.open_now: set[str] = set()
        self.most = 0
        self._fresh: dict[str, list[int]] = {}

    def prepare(self) -> None:
        """Need nothing."""

    def open(self, run_id: str, _: int | None) -> Opened:
        """Note it."""
        self.opened[run_id] += 1
        self.open_now.add(run_id)
        self.most = max(self.most, len(self.open_now))
        self._fresh[run_id] = []
        return Opened(0, ())

    def write(self, run_id: str, sealed: SealedRow) -> None:
        """Keep a row."""
        self.rows.append((run_id, sealed.ordinal))
        self._fresh[run_id].append(sealed.ordinal)

    def durable(self, run_id: str) -> Iterable[int]:
        """Return what was written since the last call."""
        fresh, self._fresh[run_id] = self._fresh[run_id], []
        return fresh

    def close(self, run_id: str) -> Iterable[int]:
        """Note it."""
        self.open_now.discard(run_id)
        return self._fresh.pop(run_id, [])

    def reset(self) -> None:
        """Close all."""
        self.open_now.clear()

    def abort(self) -> None:
        """Never hang."""


def test_surplus_runs_take_turns(inbox: Inbox) -> None:
    """What came for a run meanwhile is written in its turn: a hundred rows cost few opens."""
    runs, sink = [f"run-{number}" for number in range(5)], MemorySink()
    writer = Writer(inbox, sink, Due(settle_ns=10**12, linger_ns=0), open_runs=OpenRuns(2, 60, 0.3), interval=0.01)
    writer.start()
    for step in range(1, 21):
        inbox.add(decode(of_all(runs, step)).points, time.time_ns())
        time.sleep(0.02)
    wait_until(lambda: not inbox.waiting_runs(), 30, "all rows")
    assert writer.stop(10)
    assert (sink.most, len(sink.rows), len(set(sink.rows))) == (2, 100, 100)
    assert max(sink.opened.values()) <= 4
    assert not sink.open_now


def test_idle_run_is_reopened(inbox: Inbox) -> None:
    """It costs nothing meanwhile."""
    sink = MemorySink()
    writer = Writer(inbox, sink, Due(settle_ns=10**12, linger_ns=0), open_runs=OpenRuns(9, 0.2), interval=0.01)
    writer.start()
    for step in (1, 2):
        inbox.add(decode(of_all(["run"], step)).points, time.time_ns())
        wait_until(lambda count=step: len(sink.rows) == count and not sink.open_now, 30, "the end of the idle run")  # type: ignore[misc]
    assert writer.stop(10)
    assert sink.opened == {"run": 2}


def test_least_recent_run_makes_room() -> None:
    """Where all get rows, the one that is open for longest; nobody before its turn ends, and in order of asking."""
    runs = OpenRuns(2, 600, 30)
    for run_id, now in (("a", 0), ("b", 1)):
        assert runs.admits(run_id, now)
        runs.add(run_id, now)
    runs["a"].used = 29
    assert [runs.admits(run_id, 29) for run_id in ("c", "d")] == [False, False]
    assert (runs.admits("d", 31), runs.admits("c", 31), runs.surplus(31)) == (False, True, "b")
    runs["b"].used = 30
    assert runs.surplus(31) == "a"


@pytest.mark.parametrize(("descriptors", "most"), [(-1, MOST_OPEN), (4096, MOST_OPEN), (450, 100), (64, 1)])
def test_open_runs_fit_descriptors(descriptors: int, most: int) -> None:
    """A smaller bound means turns, not errors."""
    assert most_open(descriptors) == most


def test_poll_skips_finished_runs(inbox: Inbox) -> None:
    """A thousand runs that wandb has all of are not looked at; the inbox asks SQLite nothing for them."""
    for first in range(0, 1000, 100):
        runs = [f"run-{number}" for number in range(first, first + 100)]
        inbox.add(decode(of_all(runs, 1)).points, 0)
        with inbox.transaction():
            for run_id in runs:
                inbox.seal(run_id, Due(settle_ns=1, linger_ns=0), 1)
                inbox.mark_delivered(run_id, [0])
    inbox.add(decode(of_all(["live"], 1)).points, 0)
    statements: list[str] = []
    inbox.store.connection.set_trace_callback(statements.append)
    assert inbox.waiting_runs() == {"live": True}
    assert statements == []
