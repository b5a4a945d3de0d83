"""Jobs in each way that they end: what all ranks recorded arrives, each step once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from otel_train.testing import OtlpReceiver
from tests.support.slurm_cluster import CPUS, SlurmCluster
from tests.support.slurm_job import SlurmJob
from tests.support.slurm_outcome import DEPLOY, LAST, Outcome, ended, points_of, submit
from tests.support.stack_programs import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Death:
    """How a job ends, and what may be missing then."""

    state: str
    """Slurm's word for it."""
    launcher: str = "torchrun"
    arguments: tuple[str, ...] = ("{job}",)
    """Of the ranks' program."""
    options: tuple[str, ...] = ()
    """sbatch's."""
    environment: dict[str, str] = field(default_factory=dict)
    act: Callable[[SlurmJob, OtlpReceiver], None] = lambda *_: None
    """What somebody does to it."""
    lost: int = 0
    """Steps at most: the one whose reduction is under way as ranks are killed."""
    starts: int = 1


def cancel(job: SlurmJob, _: OtlpReceiver) -> None:
    """End a job as its user does."""
    job.reach(LAST)
    job.command("scancel", job.number)


def requeue(job: SlurmJob, _: OtlpReceiver) -> None:
    """Have a job start again, and end it well then."""
    job.reach(LAST)
    job.command("scontrol", "requeue", job.number)
    job.reach(LAST, start=2)
    job.stop.touch()


def cancel_when_served(job: SlurmJob, collector: OtlpReceiver) -> None:
    """End a job whose sidecar, which it has not started itself, delivers."""
    job.reach(LAST)
    wait_until(lambda: bool(points_of(job, collector)), 60, "the prolog's sidecar", pause=0.2)
    job.command("scancel", job.number)


def wrong(how: str, rank: int) -> tuple[str, ...]:
    """Return the arguments with which something happens in a rank."""
    return ("{job}", "--wrong", how, "--at", str(LAST), "--on", str(rank))


STEPS = ("{job}", "--steps", str(LAST))
BY_PROLOG = {"PROLOG": str(DEPLOY / "prolog.sh"), "TASK_PROLOG": str(DEPLOY / "task-prolog.sh")}
ONE_NODE = {"RANKS_PER_NODE": "2"}
PRIVATE = "scancel, private /dev/shm"
HIDDEN = any(Path("/tmp") in path.resolve().parents for path in (ROOT, Path(sys.prefix), Path(sys.base_prefix)))
"""Whether a job with a private /tmp can't see this checkout or its interpreter."""
DEATHS = {
    "time limit": Death("TIMEOUT", options=("--time=1",)),
    "requeue": Death("COMPLETED", act=requeue, starts=2),
    "normal end": Death("COMPLETED", arguments=STEPS),
    "normal end, srun": Death("COMPLETED", "srun", STEPS),
    "exception": Death("FAILED", arguments=wrong("raise", 1)),
    "kill -9, rank 0": Death("FAILED", arguments=wrong("kill", 0), lost=1),
    "kill -9, rank 1, srun": Death("FAILED", "srun", wrong("kill", 1), lost=1),
    "scancel": Death("CANCELLED", act=cancel),
    "scancel, srun": Death("CANCELLED", "srun", act=cancel),
    "scancel, sidecar of the prolog": Death("CANCELLED", "srun", act=cancel_when_served, environment=BY_PROLOG),
    PRIVATE: Death(
        "CANCELLED",
        options=("--partition=private", "--nodes=1"),
        act=cancel_when_served,
        environment={**BY_PROLOG, **ONE_NODE},
    ),
    "array": Death(
        "COMPLETED",
        arguments=("{job}/$SLURM_ARRAY_TASK_ID", *STEPS[1:]),
        # Both tasks on one node.
        options=("--array=0-1", "--nodes=1", "--nodelist=node1"),
        environment=ONE_NODE,
    ),
}


def play(slurm: SlurmCluster, collector: OtlpReceiver, death: Death) -> list[Outcome]:
    """Run a job, or all tasks of an array, to its end."""
    own = {
        "OTEL_TRAIN_RINGS": f"{slurm.local}/rings",
        "OTEL_TRAIN_RUN": f"{slurm.local}/run",
        **death.environment,
    }
    job = submit(
        slurm,
        collector.address,
        *death.arguments,
        launcher=death.launcher,
        options=death.options,
        environment=own,
    )
    death.act(job, collector)
    if "$SLURM_ARRAY_TASK_ID" not in death.arguments[0]:
        return [ended(job, collector)]
    job.end()
    return [ended(job.task(number), collector) for number in range(2)]


@pytest.fixture(scope="module")
def plays(slurm: SlurmCluster, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[list[Outcome]]]]:
    """Run the jobs of the tests that were asked for, side by side as far as the nodes have room."""
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    names = [
        str(item.callspec.params["death"]) for item in functions if item.originalname == "test_death_loses_nothing"
    ]
    with slurm.receiver(slurm.free_port()) as collector, ThreadPoolExecutor(CPUS) as pool:
        yield {
            name: pool.submit(play, slurm, collector, DEATHS[name])
            for name in names
            if not (name == PRIVATE and HIDDEN)
        }


@pytest.mark.parametrize("death", DEATHS)
def test_death_loses_nothing(death: str, plays: dict[str, Future[list[Outcome]]]) -> None:
    """Each step that all ranks had ended arrives once, but the one under way when a rank was killed."""
    if death == PRIVATE and HIDDEN:
        pytest.skip("job_container/tmpfs hides /tmp, where this checkout or its interpreter is")
    outcomes, expected = plays[death].result(), DEATHS[death]
    for outcome in outcomes:
        outcome.check(death, expected.state, lost=expected.lost, starts=expected.starts)
    run_ids = [run_id for outcome in outcomes for run_id in outcome.job.run_ids()]
    assert len({*run_ids}) == len(outcomes), run_ids
