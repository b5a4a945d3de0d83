"""Read what a rank holds of a DTensor's number, without a collective: the reduction over the ranks joins the parts.

FSDP2's `clip_grad_norm_` gives such a number: a norm of which each rank has its part. `full_tensor()` would make a
collective of it, which hangs where one rank does not come, and stalls the stream where all do.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from otel_train.catalogue import Reduction
from otel_train.torch_modes import outside_modes

_REMEDY = "give its full_tensor()"


class Part(NamedTuple):
    """Part of a number that one rank holds."""

    local: torch.Tensor | None
    """Tensor of the part; None where another rank holds it."""
    share: float = 1.0
    """Share of the rank in one count of it: a part of a sum over four ranks is a quarter."""
    kind: str = ""
    """Rule by which the parts make the number: "sum", "max", "min" or "norm"; empty where each is the whole."""


def is_dtensor(value: torch.Tensor) -> bool:
    """Tell whether a tensor is a DTensor, without loading what defines it."""
    return type(value) is not torch.Tensor and hasattr(value, "placements") and hasattr(value, "device_mesh")


def part_of(value: Any, ranks: Collection[int] | None = None) -> Part:
    """Return a rank's part of a DTensor of one element.

    Args:
        value: The DTensor.
        ranks: The ranks of the job that values are reduced over; None for all.

    Raises:
        ValueError: Its parts can't be joined; the message completes a sentence about it.
    """
    if value.numel() != 1:
        raise ValueError(f"is a tensor of {value.numel()} elements; give one number, such as its mean")
    share, kind = 1.0, ""
    for dimension, placement in enumerate(value.placements):
        if not placement.is_partial():
            continue
        size = value.device_mesh.size(dimension)
        made = _kind(placement)
        if size == 1 or made == "avg":
            continue
        if made == "" or kind not in ("", made):
            raise ValueError(f"is a DTensor of parts ({placement}) that are not joined here; {_REMEDY}")
        peers = dist.get_process_group_ranks(value.device_mesh.get_group(dimension))
        if ranks is not None and not set(peers) <= set(ranks):
            raise ValueError(f"is a DTensor with parts on ranks that telemetry does not reduce over; {_REMEDY}")
        kind = made
        if made in ("sum", "norm"):
            share /= size
    with torch.no_grad():
        local = value.to_local()  # any operation on the DTensor itself, even detach(), may be a collective
    return Part(local if local.numel() else None, share, kind)


def _kind(placement: Any) -> str:
    """Return how the parts of a partial placement make the whole; empty where this module can't tell."""
    norm = getattr(placement, "norm_type", None)
    if norm is not None:
        return "norm" if norm == 2 else ""
    made = getattr(placement, "reduce_op", "")
    return made if made in ("sum", "avg", "max", "min") and type(placement).__name__ == "Partial" else ""


@outside_modes
def natural_reduction(value: Any, declared: Reduction = Reduction.MEAN) -> Reduction:
    """Return how a scalar's values are reduced: a mean of a norm in parts can only be a norm."""
    try:
        if declared is Reduction.MEAN and isinstance(value, torch.Tensor) and is_dtensor(value):
            return Reduction.NORM if part_of(value).kind == "norm" else declared
    except Exception:  # noqa: BLE001  # it is dropped when it would be, with its reason
        return declared
    return declared


def share_of(part: Part, reduction: Reduction) -> float:
    """Return a part's share, under a metric's reduction.

    Raises:
        ValueError: The reduction does not join such parts; the message completes a sentence about it.
    """
    joins = {
        "": tuple(Reduction),
        "sum": (Reduction.MEAN, Reduction.SUM),
        "max": (Reduction.MAX,),
        "min": (Reduction.MIN,),
        "norm": (Reduction.NORM,),
    }[part.kind]
    if reduction not in joins:
        raise ValueError(
            f"is a DTensor whose parts make a {part.kind} and is declared as {reduction}; declare it as "
            f"{joins[0]}, or {_REMEDY}"
        )
    return part.share
