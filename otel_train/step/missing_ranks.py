"""Find out which ranks a reduction waits for, by the store that all ranks of the job share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from otel_train.step.rank_group import RankGroup

logger = logging.getLogger(__name__)

GRACE = 0.5
"""Seconds in which each rank that waits too has set its key."""


def find_missing(group: RankGroup, launched: int, still_waits: Callable[[], bool]) -> list[int]:
    """Return the ranks of the job that do not wait for the reduction, on one of those that do; on the others none.

    It takes a moment, and as long as the store takes to answer: nothing for a training thread.

    Args:
        group: The ranks.
        launched: How many reductions were launched before this one, the same on all ranks.
        still_waits: Tells whether the reduction has not ended yet.
    """
    assert group.handle is not None, "a rank that is alone never waits"
    try:
        store = dist.distributed_c10d._get_default_store()  # noqa: SLF001
        prefix = f"otel_train/waits/{dist.distributed_c10d._get_process_group_name(group.handle)}/{launched}"  # noqa: SLF001
        store.set(f"{prefix}/{group.rank}", "")
        time.sleep(GRACE)
        first = str(group.rank)
        if not still_waits() or store.compare_set(f"{prefix}/names", "", first).decode() != first:
            return []
        return [group.job_ranks[rank] for rank in _absent(store, prefix, 0, group.world_size)]
    except Exception as error:  # noqa: BLE001  # a store may lack an operation, or be gone; what it raises differs
        logger.debug("telemetry: the store does not tell who is missing: %r", error)
        return []


def _absent(store: Any, prefix: str, begin: int, end: int) -> list[int]:
    """Return the ranks from `begin` to `end` that have not set their key: few, so that halves are asked for."""
    if store.check([f"{prefix}/{rank}" for rank in range(begin, end)]):
        return []
    if end - begin == 1:
        return [begin]
    middle = (begin + end) // 2
    return _absent(store, prefix, begin, middle) + _absent(store, prefix, middle, end)
