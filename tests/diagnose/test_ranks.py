"""Who a job hangs on, and who slows it down."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from otel_train.catalogue import Phase
from otel_train.cli import main
from otel_train.diagnose.examine import exit_code
from otel_train.diagnose.finding import Finding, Severity
from otel_train.diagnose.ranks import find_ranks, find_stragglers
from otel_train.read import History, RankState, RingJob, Track
from otel_train.ring import Identity
from otel_train.smoke.child_process import ended_within, running_process
from tests.support.environment import clean_environment
from tests.support.waiting import wait_until

RANKS = 3
LATER = 60 * 10**9
"""Nanoseconds: so long after the last step one looks."""


class Job:
    """Three ranks under torchrun, which hang where a file says so."""

    def __init__(self, out: Path, agent: int) -> None:
        self.out, self.agent = out, agent
        self.rings = out / "rings"
        wait_until(lambda: len(list(self.rings.glob("*.ring"))) == RANKS, 120, "the first step")
        self.job = RingJob(self.rings)

    def finds(self, rank: int, *said: str) -> Finding:
        """Wait until the finder, which looks a minute later, names the rank and says all that."""
        found: list[Finding] = []

        def named() -> bool:
            self.job.refresh()
            found[:] = find_ranks(self.job.states(), self.job.history, time.time_ns() + LATER)
            return found[0].rank == rank and all(each in found[0].summary for each in said)

        with contextlib.suppress(AssertionError):
            wait_until(named)
        assert (found[0].severity, found[0].rank) == (Severity.CRITICAL, rank)
        assert [each for each in said if each not in found[0].summary] == [], found[0].summary
        return found[0]

    def goes_on(self) -> None:
        """Wait for two more steps of each rank."""
        before = [state.step for state in self.job.states()]
        wait_until(lambda: all(now.step >= then + 2 for now, then in zip(self.job.states(), before, strict=True)))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """Run the ranks as long as the module's tests."""
    out = tmp_path_factory.mktemp("job")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    command += [str(Path(__file__).with_name("hanging_ranks.py")), str(out)]
    environment = clean_environment(OTEL_TRAIN_SIDECAR="external", PYTHONPATH=str(Path(__file__).parents[2]))
    with running_process(command, out / "log", environment) as process:
        yield Job(out, process.pid)
        (out / "end").touch()
        assert ended_within(process, 60), (out / "log").read_text()


def test_a_job_that_goes_on_is_well(job: Job) -> None:
    """Nothing is said of it but that its ranks go on."""
    job.goes_on()
    job.job.refresh()
    (finding,) = find_ranks(job.job.states(), job.job.history, time.time_ns())
    assert (finding.severity, finding.summary.split(",")[0]) == (Severity.OK, "3 go on")


@pytest.mark.parametrize(
    ("place", "rank", "where"),
    [("data", 1, "in data wait"), ("compute", 0, "in its own code or a collective of the job's")],
)
def test_a_rank_that_hangs_is_named_with_where_it_does(job: Job, place: str, rank: int, where: str) -> None:
    """In its loader, or between a fetch and a store: the others wait in the ledger for it."""
    hang = job.out / f"{place}-{rank}"
    hang.touch()
    others = ", ".join(str(other) for other in range(RANKS) if other != rank)
    try:
        job.finds(rank, f"{where} since 6", f"ranks {others}: in a ledger exchange")
    finally:
        hang.unlink()
    job.goes_on()


def test_a_stopped_rank_is_named_and_how_it_goes_on(job: Job) -> None:
    """SIGSTOP leaves its process alive, in whatever phase it was."""
    pid = job.job.states()[2].pid
    os.kill(pid, signal.SIGSTOP)
    finding = job.finds(2, "stopped")
    os.kill(pid, signal.SIGCONT)
    assert finding.remedy == f"Let it go on: kill -CONT {pid}."
    job.goes_on()


def test_a_killed_rank_is_named_by_the_command(job: Job) -> None:
    """Before torchrun has ended the others: the exit code is 1, and the summary names the rank."""
    os.kill(job.agent, signal.SIGSTOP)
    os.kill(job.job.states()[1].pid, signal.SIGKILL)
    job.finds(1, "the process of rank 1 is gone")
    result = CliRunner().invoke(main, ["doctor", str(job.rings)])
    os.kill(job.agent, signal.SIGCONT)
    assert result.exit_code == 1
    assert "CRITICAL ranks: the process of rank 1 is gone" in result.output


IDENTITY = Identity(run_id="run", attempt=1, world_size=4, host="here")
NOW = 10**18


def state(rank: int, step: int = 10, phase: Phase = Phase.LEDGER, *, error: str = "", **more: bool) -> RankState:
    """Return a rank that ended its last step a minute ago."""
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
    ("states", "rank", "said"),
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
    ],
)
def test_the_pattern_says_who_is_waited_for(states: list[RankState], rank: int | None, said: str) -> None:
    """Who is behind; at one step who waits for nobody; who is gone or stopped before all others."""
    finding = find_ranks(states, History("rings", "run"), NOW)[0]
    assert finding.rank == rank
    assert said in finding.summary


@pytest.mark.parametrize(
    ("error", "severity"), [("OSError", Severity.CRITICAL), ("KeyboardInterrupt", Severity.WARNING)]
)
def test_an_exception_at_the_end_is_no_good_end(error: str, severity: Severity) -> None:
    """All ranks have closed their sessions, and the exit code says that something is wrong all the same."""
    [finding] = find_ranks([state(rank, closed=True, error=error) for rank in range(2)], History("rings", "run"), NOW)
    assert (finding.severity, exit_code([finding])) == (severity, 1)
    assert error in finding.evidence[0]


def test_a_rank_that_never_started_is_named() -> None:
    """A node of four ranks whose ranks 4, 5 and 7 have rings."""
    here = [replace(state(0), identity=replace(IDENTITY, rank=4 + local, local_rank=local)) for local in (0, 1, 3)]
    finding = find_ranks(here, History("rings", "run", facts={"job.local_world_size": 4}), NOW)[0]
    assert (finding.rank, finding.summary) == (6, "rank 6 never ended a step: of 4 on this node 3 have")


def waits(own: float) -> History:
    """Return a run in which each of three ranks waits for its data by turns longest, and rank 2 so much more."""
    history = History("rings", "run")
    for rank in range(3):
        track = history.ranks[rank] = Track()
        for step in range(60):
            wait = 0.01 * ((step + rank) % 3) + (own if rank == 2 else 0.0)
            track.add(step, step, {"train/data_wait": wait, "train/step_duration": 0.1})
    return history


def test_a_straggler_is_the_rank_that_is_slowest_more_often_than_by_chance() -> None:
    """Turns that fall evenly name nobody; a rank that is the last at nearly every step is named with its excess."""
    assert find_stragglers(waits(0.0)) == []
    (finding,) = find_stragglers(waits(0.05))
    assert (finding.rank, finding.check, (finding.chance or 1) < 1e-20) == (2, "train/data_wait", True)
