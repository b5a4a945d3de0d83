"""Check saved shards, and bring those of all ranks of a job to a rank of a job of another world size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from otel_train.arguments import check_fields
from otel_train.exceptions import StateMismatchError
from otel_train.ledger.cache_interval import Counts
from otel_train.ledger.hashing import owners_of
from otel_train.ledger.shard import describe

OWNER = "StateLedger"
_FIELDS = (
    "world_size",
    "rank",
    "step",
    "keys",
    "states",
    "last_used_step",
    "recently_evicted",
    "interval",
)


def checked_states(given: object) -> list[Mapping[str, Any]]:
    """Return saved states, one or a list of them, that have a ledger's fields.

    Raises:
        StateMismatchError: One is the state of something else, or of another version.
    """
    states: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    for state in states:
        check_fields(state, _FIELDS, OWNER)
    return states


def check_form(state: Mapping[str, Any], dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Check that a ledger's saved state is whole, with states of this dtype and shape.

    Raises:
        StateMismatchError: It isn't; the message names the reason.
        ValueError: A value has a wrong form.
    """
    Counts.from_state_dict(state["interval"])
    int(state["step"])
    tensors = [state[name] for name in ("keys", "last_used_step", "recently_evicted")]
    if not all(
        isinstance(tensor, torch.Tensor) and tensor.dtype == torch.int64 for tensor in tensors
    ) or not isinstance(state["states"], torch.Tensor):
        raise StateMismatchError(
            f"the state of {OWNER} must have its keys, steps and states as tensors; give what state_dict() returned"
        )
    states = state["states"]
    if states.dtype != dtype or tuple(states.shape[1:]) != shape:
        raise StateMismatchError(
            f"the ledger's states are {describe(dtype, shape)}, the saved ones "
            f"{describe(states.dtype, states.shape[1:])}; give the job the same state_shape and dtype"
        )
    if not len(states) == len(state["keys"]) == len(state["last_used_step"]):
        raise StateMismatchError(
            f"the state of {OWNER} has {len(state['keys'])} keys and {len(states)} states; it is damaged"
        )


def check_distinct(state: Mapping[str, Any]) -> None:
    """Check that no key is there twice in the state that a rank loads.

    Raises:
        StateMismatchError: One is.
    """
    keys = state["keys"]
    if len(keys.unique()) < len(keys):
        raise StateMismatchError(f"the state of {OWNER} has a key twice; it is damaged")


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
    steps: keys that are equally far from the new end of theirs count as evicted at the same time. What an interval
    has counted goes whole from each old rank to one new one, so the cluster's sums are exact.

    Args:
        states: The states of all old ranks, in order.
        rank: The new rank.
        world_size: The new world size.

    Returns:
        A state of the same form.
    """
    last_used = torch.cat([state["last_used_step"].cpu() for state in states])
    # The sort is stable and the ranks are in order, so equal steps stay by old rank and by their order there.
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
        "interval": Counts.total(
            Counts.from_state_dict(state["interval"]) for state in states[rank::world_size]
        ).state_dict(),
    }


def _merge_rings(rings: Sequence[torch.Tensor], rank: int, world_size: int) -> torch.Tensor:
    keys = torch.cat(list(rings))
    distance = torch.cat([torch.arange(len(ring), 0, -1, dtype=torch.int64, device="cpu") for ring in rings])
    order = distance.argsort(stable=True, descending=True)
    return keys[order[owners_of(keys[order], world_size) == rank]]
