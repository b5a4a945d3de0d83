"""The ranks that telemetry is reduced over: who they are, and agreeing on things once."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from otel_train.exceptions import ConfigurationError, SchemaMismatchError
from otel_train.ring import Identity, Schema
from otel_train.step.environment import Environment

GroupLike = dist.ProcessGroup | DeviceMesh


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
            ranks = dist.get_process_group_ranks(handle)
            made = dist.new_group(ranks, backend="nccl" if nccl else "gloo", use_local_synchronization=True)
            assert isinstance(made, dist.ProcessGroup), "this rank is one of them"
            handle = made
        return cls(
            rank=dist.get_rank(handle),
            world_size=dist.get_world_size(handle),
            global_rank=dist.get_rank(),
            handle=handle,
            job_ranks=tuple(dist.get_process_group_ranks(handle)),
            device=torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu"),
        )


def agree_identity(environment: Environment, group: RankGroup, run_id: str | None) -> Identity:
    """Agree on run id and attempt: the group's rank 0 decides, all take its word.

    Raises:
        ConfigurationError: The run id is too long or not printable.
    """
    chosen = run_id or environment.run_id or environment.rendezvous_id or uuid.uuid4().hex[:12]
    if len(chosen) > 128 or not chosen.isprintable():
        raise ConfigurationError(f"run_id must be at most 128 printable characters, got {chosen[:150]!r}")
    agreed_id, attempt = group.gather((chosen, _next_attempt()))[0]
    distributed = group.handle is not None
    return Identity(
        run_id=agreed_id,
        attempt=attempt,
        rank=group.global_rank if distributed else environment.rank,
        local_rank=environment.local_rank,
        world_size=dist.get_world_size() if distributed else environment.world_size,
        host=environment.host,
        service_name=environment.service_name,
    )


_last_attempt = 0


def _next_attempt() -> int:
    """Return the present millisecond, or the one after the last attempt of this process: no two are the same."""
    global _last_attempt  # noqa: PLW0603  # the clock is the process's, and so is what was read from it
    _last_attempt = max(time.time_ns() // 1_000_000, _last_attempt + 1)
    return _last_attempt


def agree_schema(schema: Schema | None, group: RankGroup, problem: str = "") -> None:
    """Check that all ranks measure the same things, in the same order.

    Args:
        schema: What this rank measures; None when it has a problem.
        group: The ranks.
        problem: What is wrong on this rank. It is raised on all of them: the others must not wait for this one.

    Raises:
        ConfigurationError: Some rank has a problem.
        SchemaMismatchError: They measure different things; the message names the first key and a rank that differs
            from rank 0.
    """
    gathered = group.gather((problem, (schema.modalities, schema.describe()) if schema is not None else None))
    for rank, (said, _) in enumerate(gathered):
        if said:
            raise ConfigurationError(said if group.handle is None else f"rank {rank}: {said}")
    schemas = [described for _, described in gathered]
    modalities, rows = schemas[0]
    for rank, (other_modalities, other_rows) in enumerate(schemas):
        if other_modalities != modalities:
            raise SchemaMismatchError(
                f"rank {rank} has the modalities {list(other_modalities)}, rank 0 has {list(modalities)}; "
                "give all ranks the same, in the same order"
            )
        if other_rows == rows:
            continue
        here, there = {row[0]: row for row in rows}, {row[0]: row for row in other_rows}
        for key in [*here, *there]:
            if key not in there or key not in here:
                lacking, having = (rank, 0) if key in here else (0, rank)
                raise SchemaMismatchError(
                    f"metric {key!r} is given by rank {having} and not by rank {lacking}; "
                    "log the same keys at the first step on all ranks (a NaN where there is no value)"
                )
            if here[key] != there[key]:
                raise SchemaMismatchError(
                    f"metric {key!r} is {here[key][1:]} on rank 0 and {there[key][1:]} on rank {rank}; "
                    "declare it the same way on all ranks"
                )
        raise SchemaMismatchError(f"rank {rank} gives its sources in another order than rank 0; use the same order")
