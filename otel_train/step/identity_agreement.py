"""Agree over the ranks on who they are: the run, the attempt, each one's local rank, and who starts a sidecar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch.distributed as dist

from otel_train.host_clock import ClockReading
from otel_train.ring import Fact, Identity, boot_id
from otel_train.step.attempts import LAUNCH, begin_attempt, first_value, note_attempt, past_attempt, past_run
from otel_train.step.clock_agreement import RankClock, offset_of, warn_of_wrong_clocks
from otel_train.step.environment import Environment
from otel_train.step.local_ranks import NodeClaim, local_ranks
from otel_train.step.rank_group import RankGroup
from otel_train.step.resource import HOST_NAME, SERVICE_NAME
from otel_train.step.scheduler import ScheduledJob, first_part, run_name

MAX_RUN_ID = 128


class Agreed(NamedTuple):
    """Outcome of the agreement, as one rank sees it."""

    identity: Identity
    directory: Path
    """Directory of this rank's ring."""
    facts: dict[str, Fact]
    """Facts of its ring: the ranks on this machine, and the launch where the run is named after launches."""


def agree_identity(
    environment: Environment,
    group: RankGroup,
    run_id: str,
    directory_of: Callable[[str], Path | None],
    directories: Iterable[Path],
) -> Agreed:
    """Agree on run id and attempt over the group, and on the attempt over all groups of the job that begin a session.

    A collective over the group.

    Args:
        environment: This rank's.
        group: The ranks.
        run_id: As the user or a checkpoint gives it, or empty; the first rank's holds.
        directory_of: Returns the directory of this rank's ring by the run's id; None for an id that is still empty,
            where the directory goes by it.
        directories: Where this machine has rings of the attempts before.

    Raises:
        ConfigurationError: Some rank's run id is too long or not printable; raised on all of them.
    """
    lone = _lone_rank(environment, group)
    launch = "" if environment.launch is None else environment.launch.run_id + lone
    given = run_id or launch
    problem = ""
    if len(given) > MAX_RUN_ID or not given.isprintable():
        problem = f"run_id must be at most {MAX_RUN_ID} printable characters, got {given[: MAX_RUN_ID + 22]!r}"
    claim = NodeClaim(environment.host, boot_id(), environment.local_rank, environment.local_world_size)
    # By the agent, not by the id: that of a launch may have been given to another one before.
    agent = "" if environment.launch is None else environment.launch.agent + lone
    past = past_run(directories, "" if run_id else agent)
    gathered = group.gather((problem, run_id, launch, claim, past, environment.scheduled))
    # None leaves a gathering before the last one has come, so that all read their clocks within the next one's time.
    clock, time_ns, began = ClockReading.now(), time.time_ns(), time.monotonic()
    group.raise_problem([text for text, *_ in gathered])
    _, chosen, launched, *_ = gathered[0]
    jobs = [None if job is None else ScheduledJob(*job) for *_, job in gathered]
    # The group of the job's first rank names the run after the scheduler's job, for the others along a mesh as well.
    waits = not chosen and 0 not in group.job_ranks and first_part(jobs) is not None
    agreed_id = chosen
    if not chosen and (launched or not waits):
        agreed_id = max(tuple(past) for *_, past, _ in gathered)[1]
        agreed_id = agreed_id or _scheduled_run_id(environment, group, jobs, lone) or launched
    if not chosen and launched:  # after a restart another rank may be the first, whose launch has another name
        agreed_id = group.gather(first_value(group, "run", agreed_id, waits=waits) if group.rank == 0 else None)[0]
    rank = group.global_rank if group.distributed else environment.rank
    host = environment.attributes.get(HOST_NAME) or environment.host
    readings = group.gather((past_attempt(directory_of(agreed_id), agreed_id), host, time_ns))
    newest, took = max(past for past, *_ in readings), time.monotonic() - began
    own = begin_attempt(newest, group, agreed_id, waits=waits) if group.rank == 0 else None
    begun = group.gather((own, took))
    made_id, attempt = begun[0][0]
    note_attempt(attempt)
    local = local_ranks([NodeClaim(*claim) for *_, claim, _, _ in gathered])[group.rank]
    agreed_id = agreed_id or made_id
    directory = directory_of(agreed_id)
    assert directory is not None, "the run has an id"
    identity = Identity(
        run_id=agreed_id,
        attempt=attempt,
        rank=rank,
        local_rank=local.rank,
        world_size=dist.get_world_size() if group.distributed else environment.world_size,
        host=host,
        service_name=environment.attributes.get(SERVICE_NAME) or "otel_train",
        attributes=dict(environment.attributes),
    )
    hosts = len({tuple(claim)[:2] for _, _, _, claim, _, _ in gathered})
    facts: dict[str, Fact] = {"job.local_world_size": local.world_size, "job.hosts": hosts}
    if group.handle is not None:
        clocks = [RankClock(rank, *clock) for rank, (_, *clock) in zip(group.job_ranks, readings, strict=True)]
        seconds = max(took for _, took in begun)
        facts |= offset_of(clocks[group.rank], clocks, seconds).facts | clock.facts
        if group.rank == 0:
            warn_of_wrong_clocks(clocks, seconds)
    if agent and not chosen:
        facts[LAUNCH] = agent
    return Agreed(identity, directory, facts)


def _lone_rank(environment: Environment, group: RankGroup) -> str:
    """Return the end of the run's id where each process is a job of its own and the launcher counts them; empty else.

    srun's count is in the name of the scheduler's job already.
    """
    if group.distributed or not environment.rank:
        return ""
    task = environment.scheduled.part[2] if environment.scheduled is not None else 0
    return f"-{environment.rank}" if environment.launch is not None or environment.rank != task else ""


def _scheduled_run_id(
    environment: Environment, group: RankGroup, jobs: Sequence[ScheduledJob | None], lone: str
) -> str:
    """Return the id of the run by the scheduler's job; empty outside of one.

    A collective.

    Args:
        environment: This rank's.
        group: The ranks.
        jobs: The scheduler's, by rank.
        lone: What is added for a process that is a job of its own.
    """
    first, job, name = first_part(jobs), environment.scheduled, ""
    if first is None:
        return ""
    if first == group.rank and job is not None:
        name = run_name(job, "" if environment.launch is None else environment.launch.agent, lone)
    return str(group.gather(name)[first])


def starts_sidecar(agreed: Agreed, group: RankGroup, host: str) -> bool:
    """Tell whether this rank starts the sidecar of its directory: the first one of the group for it there does.

    A collective, after the directory was made. Its path may mean another one elsewhere on the machine: containers that
    use the network of their host have its name, and each its own memory. Of several groups whose first ranks there are
    not local rank 0, only one starts a sidecar.

    Args:
        agreed: What the ranks have agreed on.
        group: The ranks.
        host: This machine's name.
    """
    try:
        status = agreed.directory.stat()
        file = f"{status.st_dev}:{status.st_ino}"
    except OSError:
        file = str(agreed.directory)
    own = [host, boot_id(), file]
    if group.gather(own).index(own) != group.rank:
        return False
    identity = agreed.identity
    key = "/".join([str(identity.attempt), *own])
    return identity.local_rank == 0 or first_value(group, key, str(identity.rank)) == str(identity.rank)
