"""The ranks that telemetry is reduced over: who they are, and agreeing on things once."""

from __future__ import annotations

import itertools
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from otel_train.exceptions import ConfigurationError, SchemaMismatchError
from otel_train.ring import Identity, Schema
from otel_train.step.environment import Environment

GroupLike = dist.ProcessGroup | DeviceMesh
MAX_RUN_ID = 128

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RankGroup:
    """The group of a reduction, as this rank sees it; without torch.distributed a group of one."""

    rank: int = 0
    """This rank within the group."""
    world_size: int = 1
    global_rank: int = 0
    """This rank within the job."""
    handle: dist.ProcessGroup | None = None
    """None without torch.distributed: then there is nothing to reduce."""
    job_ranks: tuple[int, ...] = (0,)
    """The rank within the job of each rank of the group."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where the reduction's vectors live."""

    @property
    def emits(self) -> bool:
        """Whether this rank writes the cluster's values: rank 0 of the job only.

        Peers that see the same data (the other groups along a tensor-parallel dimension) must not count twice.
        """
        return self.rank == 0 and self.global_rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's `value` (anything JSON can hold), by rank; a collective that waits.

        Written with plain tensors: torch's `all_gather_object` needs NumPy, which a training process may lack.
        """
        if self.handle is None:
            return [value]
        encoded = json.dumps(value).encode()
        sizes = torch.zeros(self.world_size, dtype=torch.int64, device=self.device)
        sizes[self.rank] = len(encoded)
        dist.all_reduce(sizes, group=self.handle)
        longest = int(sizes.max())
        own = torch.zeros(longest, dtype=torch.uint8)
        own[: len(encoded)] = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        gathered = [torch.empty_like(own, device=self.device) for _ in range(self.world_size)]
        dist.all_gather(gathered, own.to(self.device), group=self.handle)
        return [json.loads(bytes(data[:size].tolist())) for data, size in zip(gathered, sizes.tolist(), strict=True)]

    @classmethod
    def alone(cls) -> RankGroup:
        """Return the group of a process that does not use torch.distributed."""
        return cls()

    @classmethod
    def of(cls, given: GroupLike | None, *, own: bool) -> RankGroup:
        """Return the group over the same ranks as `given`.

        Args:
            given: A process group, a one-dimensional DeviceMesh, or None for all ranks.
            own: Whether to make a process group of our own, so that our collectives never meet the job's; a collective
                over the ranks of `given`.

        Raises:
            ConfigurationError: A mesh of more dimensions, or a group without torch.distributed.
        """
        if not (dist.is_available() and dist.is_initialized()):
            if given is not None:
                raise ConfigurationError("process_group was given, but torch.distributed is not initialised")
            return cls.alone()
        if isinstance(given, DeviceMesh):
            if given.ndim != 1:
                raise ConfigurationError(
                    f"process_group is a DeviceMesh of {given.ndim} dimensions; give one, such as mesh['dp']"
                )
            given = given.get_group()
        handle: dist.ProcessGroup = dist.distributed_c10d._get_default_group() if given is None else given  # noqa: SLF001
        nccl = torch.cuda.is_available() and "nccl" in str(dist.get_backend(handle))
        if own:
            handle = _new_group(tuple(sorted(dist.get_process_group_ranks(handle))), "nccl" if nccl else "gloo")
        return cls(
            rank=dist.get_rank(handle),
            world_size=dist.get_world_size(handle),
            global_rank=dist.get_rank(),
            handle=handle,
            job_ranks=tuple(dist.get_process_group_ranks(handle)),
            device=torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu"),
        )


_MADE: WeakKeyDictionary[dist.ProcessGroup, Counter[tuple[int, ...]]] = WeakKeyDictionary()
"""How many groups of our own this process has made over the same ranks, by the job's default group."""
_OWN_COUNT = 1 << 32
"""Where the count begins that our groups are named after: far beyond the job's own."""


def _new_group(ranks: tuple[int, ...], backend: str) -> dist.ProcessGroup:
    """Return a new group over `ranks`; a collective over these ranks only.

    torch names a group after the number of groups that this process has made, which must be the same on all its ranks.
    A session of some ranks only would make it differ, and the next group of the job, ours or not, would hang. So ours
    are counted by their ranks, and torch's number is left as it was.
    """
    core = dist.distributed_c10d
    made = _MADE.setdefault(core._get_default_group(), Counter())  # noqa: SLF001
    made[ranks] += 1
    before = core._world.group_count  # noqa: SLF001
    core._world.group_count = _OWN_COUNT + made[ranks]  # noqa: SLF001
    try:
        group = dist.new_group(list(ranks), backend=backend, use_local_synchronization=True)
    finally:
        core._world.group_count = before  # noqa: SLF001
    assert isinstance(group, dist.ProcessGroup), "this rank is one of them"
    return group


def agree_identity(environment: Environment, group: RankGroup, run_id: str | None) -> Identity:
    """Agree on run id and attempt over the group, and on the attempt over all groups of the job that begin a session.

    Raises:
        ConfigurationError: Some rank's run id is too long or not printable; raised on all of them.
    """
    given = run_id or environment.run_id or environment.rendezvous_id
    problem = ""
    if len(given) > MAX_RUN_ID or not given.isprintable():
        problem = f"run_id must be at most {MAX_RUN_ID} printable characters, got {given[: MAX_RUN_ID + 22]!r}"
    gathered = group.gather((problem, given, _last_attempt))
    _raise_problem([said for said, _, _ in gathered], group)
    newest = max(last for _, _, last in gathered)
    made_id, attempt = group.gather(_begin_attempt(newest) if group.rank == 0 else None)[0]
    _note_attempt(attempt)
    distributed = group.handle is not None
    return Identity(
        run_id=gathered[0][1] or made_id,
        attempt=attempt,
        rank=group.global_rank if distributed else environment.rank,
        local_rank=environment.local_rank,
        world_size=dist.get_world_size() if distributed else environment.world_size,
        host=environment.host,
        service_name=environment.service_name,
    )


_last_attempt = 0
"""The newest attempt that this process was part of."""


def _note_attempt(attempt: int) -> None:
    global _last_attempt  # noqa: PLW0603  # attempts are the process's, over all its sessions and process groups
    _last_attempt = max(attempt, _last_attempt)


def _begin_attempt(last: int) -> tuple[str, int]:
    """Return a made-up run id and an attempt newer than `last`: those of another group of the job, else new ones.

    Groups agree through the job's store, since only the ranks of a group meet here: it holds a list of attempts, each
    newer than the one before, and a group takes the first one that is newer than all that its ranks were part of. So
    the groups along a mesh's dimension share one, and no rank gets the same one twice.
    """
    own = uuid.uuid4().hex[:12], max(time.time_ns() // 1_000_000, last + 1)
    store = _job_store()
    if store is None:
        return own
    try:
        for place in itertools.count():
            made_id, attempt = json.loads(store.compare_set(f"otel_train/{place}", "", json.dumps(own)))
            if attempt > last:
                return made_id, attempt
    except Exception as error:  # noqa: BLE001  # a store may lack compare_set; what it raises differs by its kind
        logger.debug("telemetry: the store knows no attempts: %r", error)
    return own


def _job_store() -> Any:
    """Return what all ranks of the job share, or None without torch.distributed."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    return dist.distributed_c10d._get_default_store()  # noqa: SLF001


def starts_sidecar(identity: Identity, group: RankGroup, directory: Path) -> bool:
    """Tell whether this rank starts its node's sidecar: local rank 0 does, or the lowest of a group that lacks it.

    A collective. Of several groups that lack local rank 0, only one starts a sidecar.
    """
    here = [local for host, local in group.gather((identity.host, identity.local_rank)) if host == identity.host]
    if identity.local_rank != min(here):
        return False
    store, key = _job_store(), f"otel_train/{identity.attempt}/{identity.host}/{directory}"
    try:
        first = store is None or int(store.compare_set(key, "", str(identity.rank))) == identity.rank
    except Exception:  # noqa: BLE001  # as above; one sidecar too many leaves by itself
        first = True
    return identity.local_rank == 0 or first


def _raise_problem(problems: Sequence[str], group: RankGroup) -> None:
    """Raise the first rank's problem, the same on all ranks: none must wait for another that has raised."""
    for rank, said in zip(group.job_ranks, problems, strict=True):
        if said:
            raise ConfigurationError(said if group.handle is None else f"rank {rank}: {said}")


def agree_schema(
    schema: Schema | None, group: RankGroup, problem: str = "", options: Mapping[str, Any] | None = None
) -> None:
    """Check that all ranks measure the same things, in the same order, and reduce them in the same way.

    Args:
        schema: What this rank measures; None when it has a problem.
        group: The ranks.
        problem: What is wrong on this rank. It is raised on all of them: the others must not wait for this one.
        options: What must be the same on all ranks, by name.

    Raises:
        ConfigurationError: Some rank has a problem or another option; the message names it, the rank and both values.
        SchemaMismatchError: They measure different things; the message names the first key and a rank that differs
            from the group's first one, both by their rank in the job.
    """
    described = (schema.modalities, schema.describe()) if schema is not None else None
    gathered = group.gather((problem, dict(options or {}), described))
    _raise_problem([text for text, _, _ in gathered], group)
    _compare_options([given for _, given, _ in gathered], group)
    schemas = [described for _, _, described in gathered]
    modalities, rows = schemas[0]
    first = group.job_ranks[0]
    for rank, (other_modalities, other_rows) in zip(group.job_ranks, schemas, strict=True):
        if other_modalities != modalities:
            raise SchemaMismatchError(
                f"rank {rank} has the modalities {list(other_modalities)}, rank {first} has {list(modalities)}; "
                "give all ranks the same, in the same order"
            )
        if other_rows == rows:
            continue
        here, there = {row[0]: row for row in rows}, {row[0]: row for row in other_rows}
        for key in [*here, *there]:
            if key not in there or key not in here:
                lacking, having = (rank, first) if key in here else (first, rank)
                raise SchemaMismatchError(
                    f"metric {key!r} is given by rank {having} and not by rank {lacking}; "
                    "log the same keys at the first step on all ranks (a NaN where there is no value)"
                )
            if here[key] != there[key]:
                raise SchemaMismatchError(
                    f"metric {key!r} is {here[key][1:]} on rank {first} and {there[key][1:]} on rank {rank}; "
                    "declare it the same way on all ranks"
                )
        raise SchemaMismatchError(
            f"rank {rank} gives its sources in another order than rank {first}; use the same order"
        )


def _compare_options(options: Sequence[Mapping[str, Any]], group: RankGroup) -> None:
    """Raise on all ranks when one has another option: they would not reduce the same steps, and wait for each other."""
    for name, expected in options[0].items():
        for rank, given in zip(group.job_ranks, options, strict=True):
            if given.get(name) != expected:
                raise ConfigurationError(
                    f"{name} is {given.get(name)!r} on rank {rank} and {expected!r} on rank {group.job_ranks[0]}; "
                    "give all ranks the same"
                )
