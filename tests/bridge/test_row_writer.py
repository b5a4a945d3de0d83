"""Rows go to a sink in order; with more runs than may be open they take turns, and wandb is opened seldom."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from otel_train.bridge import Inbox, read_run, wandb_files
from otel_train.bridge.decode import decode
from otel_train.bridge.inbox import SealedRow
from otel_train.bridge.job_points import SessionEnd, Setting
from otel_train.bridge.open_runs import OpenRuns
from otel_train.bridge.row_order import Due
from otel_train.bridge.row_writer import Writer
from otel_train.bridge.run_end import STATE_KEY, RunEnd
from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.bridge.wandb_sink import Opened
from tests.support.step_requests import runs_request, step_request
from tests.support.waiting import wait_until


class MemorySink:
    """A sink whose rows are durable at once; counts opens."""

    patience = 30.0

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()
        self.rows: list[tuple[str, int]] = []
        self.open_now: set[str] = set()
        self.most = 0
        self.ends: list[RunEnd] = []
        self.configs: list[dict[str, Any]] = []
        self._fresh: dict[str, list[int]] = {}

    def prepare(self) -> None:
        """Do nothing."""

    def open(self, run_id: str, _: int | None) -> Opened:
        """Count it."""
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
        """Return the ordinals written since the last call."""
        fresh, self._fresh[run_id] = self._fresh[run_id], []
        return fresh

    def describe(self, _: str, config: dict[str, Any], __: dict[str, Any]) -> None:
        """Keep a config."""
        self.configs.append(config)

    def close(self, run_id: str, end: RunEnd) -> Iterable[int]:
        """Remove it from the open ones, and keep its end."""
        self.ends.append(end)
        self.open_now.discard(run_id)
        return self._fresh.pop(run_id, [])

    def reset(self) -> None:
        """Close all."""
        self.open_now.clear()

    def abort(self) -> None:
        """Never hang."""


class UnsyncedSink(MemorySink):
    """A sink whose rows are durable when their run is closed; counts looks."""

    looks = 0

    def durable(self, _: str) -> Iterable[int]:
        """Return nothing."""
        self.looks += 1
        return ()


def test_forty_runs_open_once(start: Callable[..., Any]) -> None:
    """Forty interleaved runs are opened once each; threads and descriptors do not grow with the rows."""
    runs = [f"run-{number}" for number in range(40)]
    bridge = start()
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for step in range(1, 5):
        bridge.send(runs_request(runs, step))
        for run_id in runs:
            bridge.wait(step, run_id)
    assert threading.active_count() - before[0] <= 20
    assert len(list(Path("/proc/self/fd").iterdir())) - before[1] <= 3 * len(runs) + 20
    bridge.stop()
    assert {len(wandb_files(bridge.state, run_id)) for run_id in runs} == {1}
    assert all([row.values[STEP_KEY] for row in read_run(bridge.state, run_id)] == [1, 2, 3, 4] for run_id in runs)


def test_surplus_runs_take_turns(inbox: Inbox) -> None:
    """More runs than may be open take turns: a hundred rows cost few opens, no more than there were turns."""
    runs, sink, turn = [f"run-{number}" for number in range(5)], MemorySink(), 0.3
    writer = Writer(inbox, sink, Due(settle_ns=10**12, linger_ns=0), open_runs=OpenRuns(2, 60, turn), interval=0.01)
    began = time.monotonic()
    writer.start()
    for step in range(1, 21):
        inbox.add(decode(runs_request(runs, step)).points, time.time_ns())
        time.sleep(0.02)
    wait_until(lambda: not inbox.waiting_runs(), 30, "all rows")
    assert writer.stop(10)
    assert (sink.most, len(sink.rows), len(set(sink.rows))) == (2, 100, 100)
    assert sink.opened.total() <= 2 * (1 + (time.monotonic() - began) / turn)
    assert not sink.open_now


def test_idle_run_is_reopened(inbox: Inbox) -> None:
    """An idle run is closed, and opened again when it goes on."""
    sink = MemorySink()
    writer = Writer(inbox, sink, Due(settle_ns=10**12, linger_ns=0), open_runs=OpenRuns(9, 0.2), interval=0.01)
    writer.start()
    for step in (1, 2):
        inbox.add(decode(runs_request(["run"], step)).points, time.time_ns())
        wait_until(lambda count=step: len(sink.rows) == count and not sink.open_now, 30, "the end of the idle run")  # type: ignore[misc]
    assert writer.stop(10)
    assert sink.opened == {"run": 2}


def test_idle_run_ends_as_job_did(inbox: Inbox) -> None:
    """A run that is finished because it is idle ends as its job did, and not where a later attempt follows."""
    sink = MemorySink()
    writer = Writer(inbox, sink, Due(settle_ns=10**12, linger_ns=0), open_runs=OpenRuns(9, 0.2), interval=0.01)
    writer.start()
    for attempt in (1, 2):
        with inbox.transaction():
            inbox.add(decode(step_request(1, {"loss": 0.5}, attempt=attempt)).points, time.time_ns())
            inbox.jobs.take([], [SessionEnd("run", 1, True, 3)])
        wait_until(lambda count=attempt: len(sink.ends) == count, 30, "the end of the idle run")  # type: ignore[misc]
    assert writer.stop(10)
    assert [end.exit_code for end in sink.ends] == [3, 0]


def test_silent_job_has_crashed(inbox: Inbox) -> None:
    """A job that told its settings and never its end has crashed when it is idle, also where no bridge was there."""
    inbox.add(decode(step_request(1, {"loss": 0.5})).points, time.time_ns())
    inbox.jobs.take([Setting("run", 1, "ledger.capacity", 64)], [])
    ends = []
    for idle in (60.0, 0.2, 0.2):  # the first bridge is stopped before it can tell, the last has nothing to tell
        sink = MemorySink()
        writer = Writer(inbox, sink, Due(settle_ns=10**12, linger_ns=0), open_runs=OpenRuns(9, idle), interval=0.01)
        writer.start()
        if idle > 1:
            wait_until(lambda rows=sink.rows, config=sink.configs: rows and config, 30, "the run")  # type: ignore[misc]
        wait_until(lambda: idle > 1 or not inbox.jobs.untold(), 30, "the run's end")  # noqa: B023
        assert writer.stop(10)
        ends += [(end.exit_code, end.summary.get(STATE_KEY)) for end in sink.ends]
        assert sink.configs == [{"ledger": {"capacity": 64}}] * len(sink.ends)
    assert ends == [(0, "running"), (137, "crashed")]


def test_unsynced_row_stays_undelivered(inbox: Inbox) -> None:
    """A row that the sink has, and does not call durable, is kept until it does."""
    sink = UnsyncedSink()
    writer = Writer(inbox, sink, Due(settle_ns=10**12, linger_ns=0), open_runs=OpenRuns(9, 60), interval=0.01)
    writer.start()
    inbox.add(decode(runs_request(["run"], 1)).points, time.time_ns())
    wait_until(lambda: sink.looks >= 2, 30, "two looks")
    assert len(inbox.undelivered("run")) == 1
    assert writer.stop(10)
    assert not inbox.undelivered("run")
