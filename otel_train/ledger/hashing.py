"""Turn stream ids into 64-bit keys that are the same on every rank, in every run and every Python."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence

import torch

from otel_train.exceptions import ShapeMismatchError
from otel_train.splitmix import INCREMENT, mix, mix_tensor, signed
from otel_train.torch_modes import has_no_data, plain_tensor

StreamIds = Sequence[str | int] | torch.Tensor
"""Ids as a caller gives them: strings and integers, or an int64 tensor [n]."""


def stable_hash(stream_id: str | int) -> int:
    """Return the key of a stream id.

    A string is hashed by BLAKE2b to 8 bytes: two of a million strings share a key with a probability of 3e-8. An
    integer goes through the step and finaliser of SplitMix64, a bijection: no two integers share a key.

    Examples:
        >>> from otel_train.ledger import stable_hash
        >>> stable_hash("doc-17") % 8                          # the rank of eight that owns it
        6

    Args:
        stream_id: A string, or an integer that fits in an int64; one of NumPy's, or a tensor of one, is as good.

    Returns:
        The key, in the range of a signed int64.

    Raises:
        ShapeMismatchError: It is neither.
    """
    if isinstance(stream_id, str):
        digest = hashlib.blake2b(stream_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "little", signed=True)
    if type(stream_id) is not int or not -(2**63) <= stream_id < 2**63:
        stream_id = _checked_number(stream_id)
    return signed(mix(stream_id + INCREMENT))


def _checked_number(stream_id: object) -> int:
    try:
        number = operator.index(stream_id if not isinstance(stream_id, bool) else None)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  # whatever it raises, it is not a number
        number = 2**63
    if not -(2**63) <= number < 2**63:
        raise ShapeMismatchError(
            f"a stream id must be a str or an int of 64 bits, got {type(stream_id).__name__} {stream_id!r:.80}; "
            "use a name or a number"
        )
    return number


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
