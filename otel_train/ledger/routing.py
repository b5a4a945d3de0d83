"""Decide which key goes to which rank, and which of several writes of a key counts."""

from __future__ import annotations

from typing import NamedTuple

import torch

from otel_train.ledger.hashing import owners_of


class Route(NamedTuple):
    """The route of a rank's keys to their owners and back."""

    order: torch.Tensor
    """int64 [n]: the indices of the keys, sorted by owner; those of one owner stay in their order."""
    inverse: torch.Tensor
    """int64 [n]: `sent[inverse]` is in the caller's order again."""
    sends: list[int]
    """Number of keys that go to each rank."""


def plan_route(keys: torch.Tensor, world_size: int) -> Route:
    """Plan the route of keys, int64 [n] on the CPU, to their owners.

    Args:
        keys: int64 [n] on the CPU, n may be 0.
        world_size: Number of ranks.

    Returns:
        The route; its tensors are on the CPU.
    """
    owners = owners_of(keys, world_size)
    order = owners.argsort(stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(keys), dtype=torch.int64, device="cpu")
    return Route(order, inverse, owners.bincount(minlength=world_size).tolist())


def last_occurrences(keys: torch.Tensor) -> torch.Tensor:
    """Return the index of each distinct key's last occurrence.

    Args:
        keys: int64 [n].

    Returns:
        int64 [distinct], ascending.
    """
    ordered, indices = keys.sort(stable=True)
    last = torch.ones_like(ordered, dtype=torch.bool)
    # Equal keys are in the order of their indices, so the last of a run is the last occurrence.
    last[:-1] = ordered[1:] != ordered[:-1]
    return torch.arange(len(keys), dtype=torch.int64, device="cpu") if bool(last.all()) else indices[last].sort().values
