"""Bring the saved shards of all ranks of a job to a rank of a job of another world size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from otel_train.exceptions import StateMismatchError
from otel_train.ledger.hashing import owners_of
from otel_train.ledger.source import Counts


def check_complete(states: Sequence[Mapping[str, Any]]) -> None:
    """Check that these are the states of all ranks of one job, in order, saved at one step.

    Raises:
        StateMismatchError: They aren't.
    """
    ranks = [state["rank"] for state in states]
    world_sizes = {state["world_size"] for state in states}
    if not states or world_sizes != {len(states)} or ranks != list(range(len(states))):
        raise StateMismatchError(
            f"the ledger's states must be those of all ranks in order, got ranks {ranks} of world sizes "
            f"{sorted(world_sizes)}; load one of each rank"
        )
    steps = {state["step"] for state in states}
    if len(steps) > 1:
        raise StateMismatchError(f"the ledger's states were saved at steps {sorted(steps)}; load those of one step")


def merge(states: Sequence[Mapping[str, Any]], rank: int, world_size: int) -> dict[str, Any]:
    """Return the part of all shards that a rank of another world size owns.

    The order of use follows the step of the last use, then the old rank, then the order there. The rings have no
    steps: keys that stand equally far from the new end of theirs count as evicted at the same time. The interval begins
    anew.

    Args:
        states: The states of all old ranks, in order.
        rank: The new rank.
        world_size: The new world size.

    Returns:
        A state of the same form.
    """
    last_used = torch.cat([state["last_used_step"].cpu() for state in states])
    # The sort is stable and the ranks stand in order, so equal steps stay by old rank and by their order there.
    order = last_used.argsort(stable=True)
    keys = torch.cat([state["keys"].cpu() for state in states])
    order = order[owners_of(keys[order], world_size) == rank]
    parts = [state["states"] for state in states]
    return {
        "step": states[0]["step"],
        "keys": keys[order],
        "states": torch.cat([part.to(parts[0].device) for part in parts])[order.to(parts[0].device)],
        "last_used_step": last_used[order],
        "recently_evicted": _merge_rings([state["recently_evicted"].cpu() for state in states], rank, world_size),
        "interval": Counts().state_dict(),
    }


def _merge_rings(rings: Sequence[torch.Tensor], rank: int, world_size: int) -> torch.Tensor:
    keys = torch.cat(list(rings))
    distance = torch.cat([torch.arange(len(ring), 0, -1) for ring in rings])
    order = distance.argsort(stable=True, descending=True)
    return keys[order[owners_of(keys[order], world_size) == rank]]
