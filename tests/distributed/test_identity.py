"""Who the ranks are, where no launcher says it or a launcher is wrong."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch.distributed as dist

import otel_train
from otel_train.exceptions import ConfigurationError
from otel_train.ring import RingWriter, Schema, directory, ring_path
from otel_train.step import attempts, membership
from otel_train.step.environment import Environment
from otel_train.step.torchrun import Launch
from tests.support.launcher_environments import TASK
from tests.support.on_ranks import BOUND, Job

pytestmark = pytest.mark.ranks(2, bare=True)
BRIEF: dict[str, Any] = {"blocking": True, "close_timeout": 0.1}
"""Of sessions whose end waits for a sidecar that is not started, and for nothing that counts here."""


class Trained(NamedTuple):
    """Who a rank was in a step, and what it got."""

    loss: float
    rank: int
    local_rank: int
    local_world_size: float
    sidecars: int
    """Those that it would have started."""
    run: tuple[str, int]


@contextmanager
def launched(variables: Mapping[str, str], folder: Path | None = None) -> Iterator[list[Path]]:
    """Set what a launcher says, and yield the directories for which sidecars would be started."""
    started: list[Path] = []

    class NoSidecar:
        def __init__(self, directory: Path, *_: Any) -> None:
            started.append(directory)

        def close(self) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(membership, "SidecarProcess", NoSidecar)
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")  # else no sidecar is started
        patch.setattr(directory, "MEMORY", folder or directory.MEMORY)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield started


def train(job: Job, name: str = "rings", variables: Mapping[str, str] | None = None) -> Trained:
    """Take a step with a session that begins before the group of two ranks does."""
    with launched(variables or {}, job.folder) as started:
        telemetry = job.session(name, **BRIEF)
        with job.group(), telemetry:
            values = telemetry.step(1, {"loss": float(job.rank)}) or {}
            identity = telemetry.identity
            local = identity.local_rank, telemetry._facts["job.local_world_size"]
            return Trained(values["loss"], identity.rank, *local, len(started), (identity.run_id, identity.attempt))


@pytest.mark.parametrize(
    "variables",
    [
        {},
        # The launcher has started one agent a rank, and tells both that they are the only one here.
        {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
        # Some launchers say -1 for what does not apply.
        {"RANK": "-1", "LOCAL_RANK": "-1", "WORLD_SIZE": "-1", "LOCAL_WORLD_SIZE": "-1"},
    ],
    ids=["no variables", "all local rank 0", "minus one"],
)
def test_ranks_agree_on_identity(variables: dict[str, str], job: Job) -> None:
    """The cluster's mean, ranks, local ranks, local world size and one sidecar, though init came before the group."""
    trained = train(job, variables=variables)
    assert trained == (0.5, job.rank, job.rank, 2, int(job.rank == 0), trained.run)
    with job.group():
        assert job.gather(trained.run) == [trained.run] * 2


def test_each_directory_gets_sidecar(job: Job) -> None:
    """Ranks of a machine that do not share one would else be sent by nobody."""
    assert train(job, f"own{job.rank}").sidecars == 1


def join(directory: Path | None, launch: str = "", run_id: str = "") -> membership.Membership:
    """Have this rank join its job, started by a launch, and leave a ring there."""
    environment = Environment.read()._replace(launch=Launch(launch, launch) if launch else None)
    options = membership.MembershipOptions(environment, None, run_id, directory, 10.0)
    member = membership.join_job(options, "")
    assert member.ring_dir is not None
    RingWriter(ring_path(member.ring_dir, member.identity), Schema(()), member.identity, facts=member.facts).release()
    return member


def test_each_container_gets_sidecar(job: Job) -> None:
    """Two that use their host's network have its name, and the same path leads to a directory of each."""
    own = job.folder / f"container{job.rank}"
    own.mkdir(mode=0o700)
    with launched({}) as started, job.group(), contextlib.chdir(own):
        member = join(Path("/proc/self/cwd"))
    assert (member.identity.local_rank, len(started)) == (job.rank, 1)


@pytest.mark.parametrize(("run_id", "goes_on"), [("", True), ("mine", False)], ids=["unnamed run", "named run"])
@pytest.mark.parametrize("chosen", [True, False])
def test_launch_goes_on_elsewhere(chosen: bool, run_id: str, goes_on: bool, job: Job) -> None:
    """The agent that named the run is lost with its node and the job's store: another node's ranks know the name."""
    runs = []
    for begun in range(2):
        # The second time rank 0 is on a node that is new.
        node = job.folder / f"node{job.rank}{begun * (1 - job.rank)}"
        node.mkdir(exist_ok=True)
        with launched({}), job.group(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(directory, "MEMORY", node)
            patch.setattr(attempts, "_ATTEMPTS", {0})  # torchrun starts other processes
            member = join(node / "rings" if chosen else None, node.name, run_id if not begun else "")
            runs.append((member.identity.run_id, member.identity.attempt))
    assert [run for run, _ in runs] == [run_id or "node00", "node00" if goes_on else "node01"]
    assert runs[1][1] > runs[0][1]
    with job.group():
        assert job.gather(runs) == [runs] * 2


def test_next_job_is_another_run(job: Job) -> None:
    """Pools give one process several jobs."""
    assert len({train(job, name).run[0] for name in ("first", "second", "third")}) == 3


def task(job: Job) -> dict[str, str]:
    """Return the variables of the task that srun has started as this rank, in the reverse order."""
    return {**TASK, "SLURM_PROCID": str(1 - job.rank), "SLURM_LOCALID": "0"}


def test_tasks_are_one_run(job: Job) -> None:
    """Tasks of srun are one run that the job names, with one sidecar a machine; the next session is another run."""
    first, second = (train(job, name, task(job)) for name in ("first", "second"))
    assert first == (0.5, job.rank, job.rank, 2, int(job.rank == 0), first.run)
    assert [first.run[0], second.run[0]] == ["pilot-43", "pilot-43-l2"]


def test_groups_take_jobs_name(job: Job) -> None:
    """A group without the job's first rank waits for that one's, which knows how the run is called."""
    with launched(task(job), job.folder), job.group(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempts, "PATIENCE", BOUND)
        groups = [dist.new_group([rank]) for rank in range(2)]
        time.sleep(0.2 * (1 - job.rank))
        with job.session(process_group=groups[job.rank], **BRIEF) as telemetry:
            assert set(job.gather(telemetry.identity.run_id)) == {"pilot-43-t1"}


def test_restarted_ranks_meet_again(job: Job) -> None:
    """The store of a torchrun that starts the ranks again, the second one late, still holds their old addresses."""
    restarts = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "1"}
    kept = vars(dist)["FileStore"](str(job.folder / "kept"), 2)
    for attempt in range(2):
        with launched(restarts), job.group():
            world = dist.distributed_c10d._world
            world.pg_map[world.default_pg] = ("gloo", kept)  # type: ignore[index]
            time.sleep(attempt * job.rank)
            with job.session(**BRIEF) as telemetry:
                assert (telemetry.step(1, {"loss": float(job.rank)}) or {})["loss"] == 0.5


def test_foreign_group_is_refused(job: Job) -> None:
    """One that this rank is not in, and what is no group at all."""
    other: Any = "data"
    with job.group():
        first = dist.new_group([0])
        if job.rank == 0:
            job.session(process_group=first).close()
        else:
            with pytest.raises(ConfigurationError, match=r"^process_group does not contain this rank; c"):
                job.session(process_group=first)
        with pytest.raises(ConfigurationError, match="must be a process group or a DeviceMesh, got 'data'"):
            job.session(process_group=other)


def test_ranks_without_group_are_refused(job: Job) -> None:
    """At a session's first step and in a call: one rank's values would pass for the cluster's."""
    complaint = "^torch.distributed must be initialised before the first step, since {} is"
    with launched({"WORLD_SIZE": "2"}), pytest.raises(ConfigurationError, match=complaint.format("WORLD_SIZE")):
        job.session(blocking=True).step(1, {"loss": 1.0})
    variable = "OMPI_COMM_WORLD_SIZE"
    with launched({variable: "2"}), pytest.raises(ConfigurationError, match=complaint.format(variable)):
        otel_train.reduce_loss_metrics({"loss": 1.0})
    with launched(task(job)), pytest.raises(ConfigurationError, match=complaint.format("SLURM_STEP_NUM_TASKS")):
        job.session(blocking=True).step(1, {"loss": 1.0})
