"""Jobs of two nodes in each way that they end: what all ranks recorded arrives, each step once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from otel_train.testing import OtlpReceiver, ReceivedPoint
from tests.support.fault_job import PROGRAM
from tests.support.slurm_cluster import CPUS, SlurmCluster
from tests.support.slurm_job import SlurmJob
from tests.support.slurm_node import BINARIES
from tests.support.stack_programs import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
DEPLOY = ROOT / "deploy" / "slurm"
LAST = 30
"""The step in which it goes wrong, or after which somebody ends it."""
LOSS = "train/cluster/loss"


@dataclass(frozen=True)
class Death:
    """How a job ends, and what may be missing then."""

    state: str
    """Slurm's word for it."""
    launcher: str = "torchrun"
    arguments: tuple[str, ...] = ()
    """Of the ranks' program."""
    options: tuple[str, ...] = ()
    """sbatch's."""
    act: Callable[[SlurmJob], None] = lambda _: None
    """What somebody does to it."""
    lost: int = 0
    """Steps at most: the one whose reduction is under way as ranks are killed."""
    starts: int = 1
    environment: dict[str, str] = field(default_factory=dict)


def cancel(job: SlurmJob) -> None:
    """End a job as its user does."""
    job.reach(LAST)
    job.command("scancel", job.number)


def requeue(job: SlurmJob) -> None:
    """Have a job start again, and end it well then."""
    job.reach(LAST)
    job.command("scontrol", "requeue", job.number)
    job.reach(LAST, start=2)
    job.stop.touch()


def wrong(how: str, rank: int) -> tuple[str, ...]:
    """Return the arguments with which something happens in a rank."""
    return ("--wrong", how, "--at", str(LAST), "--on", str(rank))


DEATHS = {
    "time limit": Death("TIMEOUT", options=("--time=1",), lost=1),
    "requeue": Death("COMPLETED", act=requeue, lost=1, starts=2),
    "normal end": Death("COMPLETED", arguments=("--steps", str(LAST))),
    "normal end, srun": Death("COMPLETED", "srun", ("--steps", str(LAST))),
    "exception": Death("FAILED", arguments=wrong("raise", 1)),
    "kill -9, rank 0": Death("FAILED", arguments=wrong("kill", 0), lost=1),
    "kill -9, rank 1, srun": Death("FAILED", "srun", wrong("kill", 1), lost=1),
    "scancel": Death("CANCELLED", act=cancel, lost=1),
    "scancel, srun": Death("CANCELLED", "srun", act=cancel, lost=1),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: SlurmJob
    states: list[str]
    points: list[ReceivedPoint]

    def arrived(self) -> list[list[int]]:
        """Return for each attempt the steps of the cluster that arrived, as often as they came with another time."""
        attempts: dict[int, list[int]] = {}
        for (instance, _), step in sorted({(p.instance, p.time_ns): int(p.value) for p in self.points}.items()):
            attempts.setdefault(int(instance.split("/")[-2]), []).append(step)
        return [steps for _, steps in sorted(attempts.items())]


def play(slurm: SlurmCluster, collector: OtlpReceiver, death: Death) -> Outcome:
    """Run a job to its end."""
    environment = {
        "EPILOG": str(DEPLOY / "epilog.sh"),
        "OTEL_TRAIN_COMMAND": str(BINARIES / "otel-train"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
        **death.environment,
    }
    arguments = (*PROGRAM, "{job}", *death.arguments)
    job = slurm.submit(DEPLOY / f"{death.launcher}.sbatch", *arguments, options=death.options, environment=environment)
    death.act(job)
    states = job.end()
    (run_id,) = job.run_ids()
    points = [point for point in collector.points if point.name == LOSS and point.instance.rsplit("/", 2)[0] == run_id]
    return Outcome(job, states, points)


@pytest.fixture(scope="module")
def outcomes(slurm: SlurmCluster, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Outcome]]]:
    """Run the jobs of the tests that were asked for, side by side as far as the nodes have room."""
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = [
        str(item.callspec.params["death"]) for item in functions if item.originalname == "test_death_loses_nothing"
    ]
    with slurm.receiver(slurm.free_port()) as collector, ThreadPoolExecutor(CPUS) as pool:
        yield {name: pool.submit(play, slurm, collector, DEATHS[name]) for name in asked}


@pytest.mark.parametrize("death", DEATHS)
def test_death_loses_nothing(death: str, outcomes: dict[str, Future[Outcome]]) -> None:
    """Each step that all ranks had ended arrives once, but the one under way when a rank was killed."""
    outcome, expected = outcomes[death].result(), DEATHS[death]
    log = outcome.job.log.read_text()
    assert outcome.states == [expected.state], log
    recorded, arrived = outcome.job.recorded(), outcome.arrived()
    print(f"{death}: recorded {recorded}, arrived {[len(set(steps)) for steps in arrived]}")
    assert len(recorded) == len(arrived) == expected.starts, log
    for count, steps in zip(recorded, arrived, strict=True):
        assert count >= LAST - 1
        assert [step for step, times in Counter(steps).items() if times > 1] == []
        missing = sorted({*range(1, count + 1)} - set(steps))
        assert missing in [list(range(count - lost + 1, count + 1)) for lost in range(expected.lost + 1)], log
