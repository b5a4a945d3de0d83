"""The rank that a job hangs on, of a real job and of given states."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from otel_train.catalogue import Phase
from otel_train.cli import main
from otel_train.diagnose.examine import examine, exit_code
from otel_train.diagnose.finding import Finding, Severity
from otel_train.diagnose.ranks import find_ranks
from otel_train.read import History, RankState, RingJob
from otel_train.ring import Identity
from otel_train.smoke.child_process import ended_within, running_process
from tests.support.torchrun import rank_environment, script, torchrun
from tests.support.waiting import wait_until

RANKS = 3
LATER = 600 * 10**9
"""Time of the examination after the last step, in nanoseconds."""


class Job:
    """Three ranks under torchrun, which hang where a file says so."""

    def __init__(self, out: Path, agent: int) -> None:
        self.out, self.agent = out, agent
        self.rings = out / "rings"
        wait_until(lambda: len(list(self.rings.glob("*.ring"))) == RANKS, 120, "the first step")
        self.job = RingJob(self.rings)

    def finding_about(self, rank: int, *phrases: str) -> Finding:
        """Wait until the finding of ten minutes later names the rank and has all the phrases."""
        findings: list[Finding] = []

        def named() -> bool:
            self.job.refresh()
            states = self.job.states()
            # However late this process looks: no time but that of the rank goes into what is said of it.
            findings[:] = find_ranks(states, self.job.history, states[rank].phase_time_ns + LATER)
            return findings[0].rank == rank and all(phrase in findings[0].summary for phrase in phrases)

        with contextlib.suppress(AssertionError):
            wait_until(named)
        assert (findings[0].severity, findings[0].rank) == (Severity.CRITICAL, rank)
        assert [phrase for phrase in phrases if phrase not in findings[0].summary] == [], findings[0].summary
        return findings[0]

    def goes_on(self) -> None:
        """Wait for two more steps of each rank."""
        before = [state.step for state in self.job.states()]
        wait_until(lambda: all(now.step >= then + 2 for now, then in zip(self.job.states(), before, strict=True)))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """Run the ranks as long as the module's tests; a file named after an activity and a rank makes it hang in that."""

    def train(out: Path) -> None:
        import datetime as dt
        import time

        import torch
        import torch.distributed as dist

        import otel_train
        from otel_train.ledger import StateLedger

        def hang(activity: str) -> None:
            while (out / f"{activity}-{dist.get_rank()}").exists():
                time.sleep(0.02)

        def batches() -> Iterator[list[int]]:
            while True:
                hang("data")
                time.sleep(0.02)
                yield [3 * dist.get_rank() + stream for stream in range(3)]

        dist.init_process_group("gloo", timeout=dt.timedelta(seconds=120))
        ledger = StateLedger((2,), capacity=8)
        with otel_train.init(sources=[ledger], ring_dir=out / "rings") as telemetry:
            for step, batch in enumerate(telemetry.timed(batches()), start=1):
                states = ledger.fetch(batch).states
                hang("compute")
                ledger.store(batch, states + 1)
                telemetry.step(step, {"loss": 1.0})
                done = torch.tensor([float((out / "end").exists())])
                dist.all_reduce(done)
                if done:
                    break

    out = tmp_path_factory.mktemp("job")
    command = torchrun(RANKS, script(out, train, out))
    with running_process(command, out / "log", rank_environment()) as process:
        yield Job(out, process.pid)
        (out / "end").touch()
        assert ended_within(process, 60), (out / "log").read_text()


def test_live_job_is_ok(job: Job) -> None:
    """A job that goes on has the one finding that its ranks go on."""
    job.goes_on()
    job.job.refresh()
    states = job.job.states()
    (finding,) = find_ranks(states, job.job.history, max(state.step_time_ns for state in states) + 10**9)
    assert (finding.severity, finding.summary.split(",")[0]) == (Severity.OK, "3 go on")


@pytest.mark.parametrize(
    ("activity", "rank", "where"),
    [("data", 1, "in data wait"), ("compute", 0, "in its own code or a collective of the job's")],
)
def test_hanging_rank_is_named(job: Job, activity: str, rank: int, where: str) -> None:
    """A rank hangs in its loader, or between a fetch and a store, and is named while the others wait in the ledger."""
    hang = job.out / f"{activity}-{rank}"
    hang.touch()
    others = ", ".join(str(other) for other in range(RANKS) if other != rank)
    try:
        job.finding_about(rank, f"{where} since 600 s", f"ranks {others}: in a ledger exchange")
    finally:
        hang.unlink()
    job.goes_on()


def test_stopped_rank_is_named(job: Job) -> None:
    """A rank that SIGSTOP has stopped is named, in whatever phase it was, with the command that continues it."""
    pid = job.job.states()[2].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        finding = job.finding_about(2, "stopped")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert finding.remedy == f"Let it go on: kill -CONT {pid}."
    job.goes_on()


def test_killed_rank_is_named(job: Job) -> None:
    """Before torchrun has ended the others, doctor's exit code is 1, and its summary names the killed rank."""
    os.kill(job.agent, signal.SIGSTOP)
    try:
        os.kill(job.job.states()[1].pid, signal.SIGKILL)
        job.finding_about(1, "the process of rank 1 is gone")
        result = CliRunner().invoke(main, ["doctor", str(job.rings)])
    finally:
        os.kill(job.agent, signal.SIGCONT)
    assert result.exit_code == 1
    assert "CRITICAL ranks: the process of rank 1 is gone" in result.output


IDENTITY = Identity(run_id="run", attempt=1, world_size=4, host="here")
NOW = 10**18


def state(rank: int, step: int = 10, phase: Phase = Phase.LEDGER, *, error: str = "", **more: bool) -> RankState:
    """Return a rank that ended its last step ten minutes ago."""
    return RankState(
        identity=replace(IDENTITY, rank=rank, local_rank=rank),
        step=step,
        step_time_ns=NOW - LATER,
        phase=phase,
        phase_time_ns=NOW - LATER,
        lives=more.get("lives", True),
        closed=more.get("closed", False),
        abandoned=0,
        dropped=0,
        refused=0,
        unsent=0,
        error=error,
        stopped=more.get("stopped", False),
    )


@pytest.mark.parametrize(
    ("states", "rank", "phrase"),
    [
        ([state(0), state(1, 9), state(2)], 1, "1 step behind"),
        ([state(0, phase=Phase.COMPUTE), state(1, phase=Phase.DATA)], 1, "in data wait"),
        ([state(0), state(1)], None, "each rank here is in a ledger exchange"),
        ([state(0, lives=False), state(1)], 0, "gone without having ended its session, while 1 others"),
        ([state(0), state(1, closed=True)], None, "each rank here is in a ledger exchange"),
        ([state(0, phase=Phase.DATA), state(1, stopped=True)], 1, "stopped"),
        ([state(0, closed=True), state(1, closed=True)], None, "all 2 have ended"),
        ([state(0, closed=True), state(1, closed=True, error="OSError")], 1, "after step 10 with OSError, 1 others"),
        ([state(0), state(1, closed=True, error="torch.OutOfMemoryError")], 1, "with torch.OutOfMemoryError"),
        ([state(0, closed=True, error="SIGTERM"), state(1, closed=True, error="OSError")], 1, "OSError or SIGTERM"),
        ([state(0, closed=True, error="SIGTERM"), state(1, lives=False)], 1, "gone without having ended its session"),
    ],
)
def test_culprit_is_named(states: list[RankState], rank: int | None, phrase: str) -> None:
    """A rank that is behind is named; at one step one that waits for nobody; before all one that is gone."""
    finding = find_ranks(states, History("rings", "run"), NOW)[0]
    assert finding.rank == rank
    assert phrase in finding.summary


@pytest.mark.parametrize(
    ("error", "severity", "remedy"),
    [
        ("OSError", Severity.CRITICAL, "the traceback at the end of rank 0's log"),
        ("SIGTERM", Severity.CRITICAL, "the scheduler's and the launcher's log"),
        ("KeyboardInterrupt", Severity.WARNING, "from its last checkpoint"),
    ],
)
def test_exception_is_finding(error: str, severity: Severity, remedy: str) -> None:
    """Ranks that an exception or a signal ended are a finding with exit code 1."""
    [finding] = find_ranks([state(rank, closed=True, error=error) for rank in range(2)], History("rings", "run"), NOW)
    assert (finding.severity, exit_code([finding])) == (severity, 1)
    assert error in finding.evidence[0]
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("code", "severity", "phrase"),
    [
        (0, Severity.OK, "has ended, at step 7"),
        (1, Severity.CRITICAL, "after step 7 with exit code 1"),
        (130, Severity.WARNING, "after step 7 with KeyboardInterrupt"),
        (137, Severity.CRITICAL, "without a word"),
        (143, Severity.CRITICAL, "after step 7 with SIGTERM"),
    ],
)
def test_exit_code_is_finding(code: int, severity: Severity, phrase: str) -> None:
    """A run of a source that has its job's exit code, and no rings, did not end well for want of these."""
    history = History("a store", "run", exit_code=code, failed_rank=1)
    history.cluster.add(7, NOW, {})
    [finding] = [finding for finding in examine(history) if finding.check == "ranks"]
    assert (finding.severity, exit_code([finding])) == (severity, int(code > 0))
    assert phrase in finding.summary
    assert (finding.rank, bool(finding.cause)) == ((1, True) if code else (None, False))


def test_unstarted_rank_is_named() -> None:
    """Of a node of four ranks whose ranks 4, 5 and 7 have rings, rank 6 is named."""
    here = [replace(state(0), identity=replace(IDENTITY, rank=4 + local, local_rank=local)) for local in (0, 1, 3)]
    finding = find_ranks(here, History("rings", "run", facts={"job.local_world_size": 4}), NOW)[0]
    assert (finding.rank, finding.summary) == (6, "rank 6 never ended a step: of 4 on this node 3 have")
