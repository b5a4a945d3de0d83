"""Turn stream ids into 64-bit keys that are the same on every rank, in every run and every Python."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from otel_train.exceptions import ShapeMismatchError
from otel_train.splitmix import INCREMENT, mix_tensor, signed
from otel_train.stable_hash import stable_hash
from otel_train.torch_modes import has_no_data, plain_tensor

StreamIds = Sequence[str | int] | torch.Tensor
"""Ids as a caller gives them: strings and integers, or an int64 tensor [n]."""


def keys_of(stream_ids: StreamIds) -> torch.Tensor:
    """Return the keys of many stream ids.

    Args:
        stream_ids: n strings and integers, or an int64 tensor [n] on any device.

    Returns:
        int64 [n] on the CPU.

    Raises:
        ShapeMismatchError: An id is neither string nor integer, or the tensor has another shape or dtype.
    """
    if isinstance(stream_ids, torch.Tensor):
        if has_no_data(stream_ids):
            raise ShapeMismatchError(
                f"stream_ids must be a plain tensor, got {type(stream_ids).__name__}; a DTensor has to_local()"
            )
        stream_ids = plain_tensor(stream_ids)
        if stream_ids.dtype != torch.int64 or stream_ids.dim() != 1:
            dtype = str(stream_ids.dtype).removeprefix("torch.")
            raise ShapeMismatchError(f"stream_ids must be int64 [n], got {dtype} {list(stream_ids.shape)}")
        return mix_tensor(stream_ids.detach().cpu() + signed(INCREMENT))
    if isinstance(stream_ids, str | bytes) or not isinstance(stream_ids, Sequence):
        # A lone string is a sequence of strings to Python; nobody means its letters.
        raise ShapeMismatchError(
            f"stream_ids must be a sequence of ids or an int64 tensor, got {type(stream_ids).__name__}; use a list"
        )
    return torch.tensor([stable_hash(stream_id) for stream_id in stream_ids], dtype=torch.int64, device="cpu")


def owners_of(keys: torch.Tensor, world_size: int) -> torch.Tensor:
    """Return the rank that owns each key: the key, taken as unsigned, modulo the world size.

    Args:
        keys: int64 [n].
        world_size: Number of ranks.

    Returns:
        int64 [n], on the device of `keys`.
    """
    # Two's complement: a negative key stands for itself plus 2**64.
    return (keys.remainder(world_size) + (keys < 0) * (2**64 % world_size)).remainder(world_size)
