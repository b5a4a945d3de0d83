"""The ranks that telemetry is reduced over, and the process group in which they meet."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from otel_train.exceptions import ConfigurationError
from otel_train.log_once import OnceLogger
from otel_train.step.environment import launched_world_size, store_outlives_ranks
from otel_train.torch_modes import outside_modes

logger = logging.getLogger(__name__)

GroupLike = dist.ProcessGroup | DeviceMesh
PATIENCE = 30.0
"""Seconds for which a rank waits for the others in silence."""
_WARNINGS = OnceLogger(logger)
_WAITS = (
    "telemetry: rank %d has waited %.0f s for the other ranks, in otel_train.init() or at the first step: each rank "
    "must call both, also one that has no batch or no values (step(n) without any), and not inside `if rank == 0`"
)


class RankGroup(NamedTuple):
    """The group of a reduction, as this rank sees it; without torch.distributed a group of one."""

    rank: int = 0
    """This rank within the group."""
    world_size: int = 1
    global_rank: int = 0
    """This rank within the job."""
    handle: dist.ProcessGroup | None = None
    """Process group; None without torch.distributed, or where its collectives do nothing: nothing is reduced then."""
    job_ranks: tuple[int, ...] = (0,)
    """The rank within the job of each rank of the group."""
    device: torch.device = torch.device("cpu")
    """Device of the reduction's vectors."""
    distributed: bool = False
    """Whether torch.distributed is initialised."""
    own: bool = False
    """Whether the process group was made for the session."""

    @property
    def emits(self) -> bool:
        """Whether this rank writes the cluster's values: rank 0 of the job only.

        Peers that see the same data (the other groups along a tensor-parallel dimension) must not count twice.
        """
        return self.rank == 0 and self.global_rank == 0

    @outside_modes
    def gather(self, value: Any) -> list[Any]:
        """Return every rank's `value` (anything JSON can hold), by rank; a collective that waits.

        Written with plain tensors: torch's `all_gather_object` needs NumPy, which a training process may lack.
        """
        if self.handle is None:
            return [value]
        encoded = json.dumps(value).encode()
        sizes = torch.zeros(self.world_size, dtype=torch.int64, device=self.device)
        sizes[self.rank] = len(encoded)
        with _says_if_waiting(self.global_rank):
            dist.all_reduce(sizes, group=self.handle)
            longest = int(sizes.max())  # NCCL's call only begins it
        own = torch.zeros(longest, dtype=torch.uint8, device="cpu")
        own[: len(encoded)] = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        gathered = [torch.empty_like(own, device=self.device) for _ in range(self.world_size)]
        dist.all_gather(gathered, own.to(self.device), group=self.handle)
        return [json.loads(bytes(data[:size].tolist())) for data, size in zip(gathered, sizes.tolist(), strict=True)]

    def raise_problem(self, problems: Sequence[str]) -> None:
        """Raise the first rank's problem, the same on all ranks: none must wait for another that has raised.

        Args:
            problems: Each rank's, by its rank in the group; empty where it has none.

        Raises:
            ConfigurationError: Some rank has a problem.
        """
        for rank, problem in zip(self.job_ranks, problems, strict=True):
            if problem:
                raise ConfigurationError(problem if self.handle is None else f"rank {rank}: {problem}")

    def destroy(self) -> None:
        """Give back the threads and connections of a process group of our own, in which nothing is under way.

        One of NCCL's stays until the job destroys all of its groups: a peer may still read what this rank has sent.
        """
        if self.own and self.handle is not None and self.device.type == "cpu":
            with contextlib.suppress(ValueError, RuntimeError):  # the job has destroyed all of them
                dist.destroy_process_group(self.handle)

    def keep(self) -> None:
        """Keep the process group, in which something is under way, until the process ends or `let_go` is called.

        Gloo's destructor waits for that: a program that a peer still waits for would hang when its last reference goes,
        at the interpreter's end at the latest.
        """
        if self.handle is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.handle))

    def let_go(self) -> None:
        """Undo `keep`: nothing is under way any more."""
        if self.handle is not None:
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(self.handle))

    @classmethod
    def alone(cls) -> RankGroup:
        """Return the group of a process that does not use torch.distributed."""
        return cls()

    @classmethod
    @outside_modes
    def of(cls, given: GroupLike | None, *, own: bool) -> RankGroup:
        """Return the group over the same ranks as `given`.

        Args:
            given: A process group, a one-dimensional DeviceMesh, or None for all ranks.
            own: Whether to make a process group of our own, so that our collectives never meet the job's; a collective
                over the ranks of `given`.

        Raises:
            ConfigurationError: A mesh of more dimensions, or not a group, or one without this rank; a group, or several
                ranks, without torch.distributed.
        """
        if not group_exists():
            if given is not None:
                raise ConfigurationError("process_group was given, but torch.distributed is not initialised")
            variable, count = launched_world_size()
            if count > 1:
                raise ConfigurationError(
                    f"torch.distributed must be initialised before the first step, since {variable} is {count}; call "
                    "init_process_group() before it, or set WORLD_SIZE=1 where each process is a job of its own"
                )
            return cls.alone()
        if isinstance(given, DeviceMesh):
            if given.ndim != 1:
                raise ConfigurationError(
                    f"process_group is a DeviceMesh of {given.ndim} dimensions; give one, such as mesh['dp']"
                )
            given = given.get_group()
        _check_group(given)
        handle: dist.ProcessGroup = dist.distributed_c10d._get_default_group() if given is None else given  # noqa: SLF001
        # By device, such as cpu:gloo,cuda:nccl: a group that was made without a backend has no other name.
        backends = str(dist.get_backend_config(handle))
        if "fake" in backends:  # a dry run of one rank: its collectives give back what they are given
            return cls(global_rank=dist.get_rank(), job_ranks=(dist.get_rank(),), distributed=True)
        nccl = torch.cuda.is_available() and "cuda:nccl" in backends
        group = cls(
            rank=dist.get_rank(handle),
            world_size=dist.get_world_size(handle),
            global_rank=dist.get_rank(),
            handle=handle,
            distributed=True,
            job_ranks=tuple(dist.get_process_group_ranks(handle)),
            device=torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu"),
        )
        return group._own(handle, "nccl" if nccl else "gloo") if own else group

    def _own(self, handle: dist.ProcessGroup, backend: str) -> RankGroup:
        """Return the group of our own over the same ranks; a collective."""
        salt = 0
        if store_outlives_ranks():
            # The names of the attempt before are still in the store, with addresses that are closed by now.
            salt = self.gather(int.from_bytes(os.urandom(8), "little") if self.rank == 0 else 0)[0]
        with _says_if_waiting(self.global_rank):
            own = _new_group(tuple(sorted(dist.get_process_group_ranks(handle))), backend, salt)
        ranks = tuple(dist.get_process_group_ranks(own))
        return self._replace(rank=dist.get_rank(own), handle=own, own=True, job_ranks=ranks)


@contextlib.contextmanager
def _says_if_waiting(rank: int) -> Iterator[None]:
    """Say it once what this rank waits for, long before the process group's time is up: half an hour with gloo."""
    warning = threading.Timer(PATIENCE, _WARNINGS.warn, ("wait", _WAITS, rank, PATIENCE))
    warning.daemon = True
    with contextlib.suppress(RuntimeError):  # no thread is to be had: it waits in silence
        warning.start()
    try:
        yield
    finally:
        warning.cancel()


def _check_group(given: Any) -> None:
    if given == dist.GroupMember.NON_GROUP_MEMBER:
        raise ConfigurationError("process_group does not contain this rank; call it on the group's ranks only")
    if not isinstance(given, dist.ProcessGroup | None):
        raise ConfigurationError(f"process_group must be a process group or a DeviceMesh, got {given!r:.80}")


def group_exists() -> bool:
    """Tell whether torch.distributed is initialised, so that the ranks can agree on something."""
    return dist.is_available() and dist.is_initialized()


_MADE: WeakKeyDictionary[dist.ProcessGroup, Counter[tuple[int, ...]]] = WeakKeyDictionary()
"""Number of groups that this process has made for itself over the same ranks, by the job's default group."""
_OWN_COUNT = 1 << 32
"""Begin of the count that these groups are named after: far beyond the job's own."""


_ALIVE: WeakSet[dist.ProcessGroup] = WeakSet()
"""Groups that this process has made for itself."""


def _keep_in_child() -> None:
    """Keep these groups in a process that was forked, such as a DataLoader's worker, for good.

    Gloo's destructor waits for threads, which a child does not have: it hung, or crashed, when it collected the garbage
    of a session that its parent had closed.
    """
    for group in list(_ALIVE):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))


os.register_at_fork(after_in_child=_keep_in_child)


def _new_group(ranks: tuple[int, ...], backend: str, salt: int) -> dist.ProcessGroup:
    """Return a new group over `ranks`; a collective over these ranks only.

    torch names a group after the number of groups that this process has made, which must be the same on all its ranks.
    A session of some ranks only would make it differ, and the next group of the job, ours or not, would hang. So ours
    are counted by their ranks, and torch's number is left as it was.

    Args:
        ranks: Of the job, this one among them.
        backend: The new group's.
        salt: Makes the name another one, the same on all ranks.
    """
    core = dist.distributed_c10d
    made = _MADE.setdefault(core._get_default_group(), Counter())  # noqa: SLF001
    made[ranks] += 1
    before = core._world.group_count  # noqa: SLF001
    core._world.group_count = (salt + 1) * _OWN_COUNT + made[ranks]  # noqa: SLF001
    try:
        group = dist.new_group(list(ranks), backend=backend, use_local_synchronization=True)
    finally:
        core._world.group_count = before  # noqa: SLF001
    assert isinstance(group, dist.ProcessGroup), "this rank is one of them"
    _ALIVE.add(group)
    return group
