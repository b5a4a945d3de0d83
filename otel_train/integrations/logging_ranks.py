"""Which processes log: all, or the main one only. A session that waits for those that never do would hang the job."""

from __future__ import annotations

import logging
import os
import time
from weakref import WeakKeyDictionary

import torch.distributed as dist

logger = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds that a rank waits for the others' first value of a session."""
_PAUSE = 0.01
_ALL, _OWN = "all", "own"
_CALLS: WeakKeyDictionary[dist.ProcessGroup, int] = WeakKeyDictionary()
"""Number of times that this rank has asked, by the job's default group."""


def logging_group(*, alone: bool) -> dist.ProcessGroup | None:
    """Return the group of this rank alone where the others do not log within `PATIENCE` seconds; else None, for all.

    Args:
        alone: Whether it is known that this rank logs alone.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        _warn_of_lone_process()
        return None
    if not alone and _all_come():
        return None
    group = dist.new_group([dist.get_rank()], use_local_synchronization=True)
    return group if isinstance(group, dist.ProcessGroup) else None


def _all_come() -> bool:
    """Tell whether every rank calls this in time; all that call it are told the same."""
    ranks = dist.get_world_size()
    try:
        store = dist.distributed_c10d._get_default_store()  # noqa: SLF001
        default = dist.distributed_c10d._get_default_group()  # noqa: SLF001
        number = _CALLS[default] = _CALLS.get(default, 0) + 1
        # torchrun's store outlives an attempt.
        prefix = f"otel_train/logs/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{number}"
        keys = [f"{prefix}/{rank}" for rank in range(ranks)]
        store.set(keys[dist.get_rank()], "")
        deadline = time.monotonic() + PATIENCE
        while not (complete := store.check(keys)) and time.monotonic() < deadline:
            if store.check([f"{prefix}/decision"]):  # others have waited before
                break
            time.sleep(_PAUSE)
        decision = store.compare_set(f"{prefix}/decision", "", _ALL if complete else _OWN).decode()
        if decision == _OWN:
            _warn_of_own_values(sum(store.check([key]) for key in keys), ranks)
    except Exception as error:  # noqa: BLE001  # a store may lack an operation; what it raises differs
        logger.debug("telemetry: the store does not tell who logs: %r", error)
        return True
    return bool(decision == _ALL)


def _warn_of_own_values(came: int, ranks: int) -> None:
    logger.warning(
        "telemetry: %d of %d processes log within %.0f s: what this one logs is recorded as its own, not as the "
        "cluster's. Log on every process, not inside `if is_main_process`, or give main_process_only=True",
        came,
        ranks,
        PATIENCE,
    )


def _warn_of_lone_process() -> None:
    """Say that `accelerate launch --cpu --num_processes 2` has started one process; it does not say so itself."""
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys() and "WORLD_SIZE" not in os.environ:
        logger.warning(
            "telemetry: accelerate launch was to start several processes and has started this one only; on CPUs use "
            "ACCELERATE_USE_CPU=true torchrun --nproc-per-node N, on GPUs accelerate launch --multi_gpu"
        )
