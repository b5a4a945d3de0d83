"""Turn stream ids into 64-bit keys that are the same on every rank, in every run and every Python."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import torch

from otel_train.exceptions import ShapeMismatchError
from otel_train.ledger.int_buffer import IntBuffer
from otel_train.native import core
from otel_train.splitmix import INCREMENT, mix_tensor, signed
from otel_train.stable_hash import stable_hash
from otel_train.torch_modes import has_no_data, plain_tensor

StreamIds = Sequence[str | int] | torch.Tensor
"""Ids as a caller gives them: strings and integers, or an int64 tensor [n]."""


MOST, LONGEST = 65_536, 256
"""Strings in each of the two generations that `SeenIds` has, and the characters of the longest that it keeps."""


def hash_ids(  # noqa: PLR0917  # as the core's
    ids: list[str | int] | tuple[str | int, ...],
    keys: array[int],
    young: dict[str, int],
    old: dict[str, int],
    most: int,
    longest: int,
    hash_id: Callable[[str | int], int],
) -> None:
    """Turn ids into keys; a string that came before is looked up.

    Args:
        ids: n strings and integers.
        keys: Receives their keys, [n].
        young: Keys of strings that came lately; those of this call are added, up to `most`.
        old: Keys of strings that came before those.
        most: The most strings in `young`.
        longest: Characters of the longest string that is added.
        hash_id: The hash of what is in neither; it raises for what is no id.
    """
    for index, one in enumerate(ids):
        key = young.get(one) if type(one) is str else None
        if key is None and type(one) is str:
            key = old.get(one)
            key = hash_id(one) if key is None else key
            if len(young) < most and len(one) <= longest:
                young[one] = key
        keys[index] = hash_id(one) if key is None else key


def _mix_ids(ids: array[int], count: int) -> None:
    numbers = torch.frombuffer(ids, dtype=torch.int64, count=count)
    numbers.copy_(mix_tensor(numbers + signed(INCREMENT)))


_hash_ids = hash_ids if core is None else core.hash_ids
_mix: Callable[[array[int], int], None] = _mix_ids if core is None else core.mix_ids


class SeenIds:
    """Keys of the strings that came before, so that these are not hashed again: an integer's hash is cheaper than that.

    At most 2 * `MOST` strings of at most `LONGEST` characters: some 20 MB where they are of 32. The ones that came
    since a generation was full are one generation, those before them the other; what is older is hashed again.
    """

    def __init__(self) -> None:
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}

    def write_keys(self, stream_ids: StreamIds, keys: IntBuffer) -> None:
        """Write the keys of a call's stream ids.

        Args:
            stream_ids: n strings and integers, or an int64 tensor [n] on any device.
            keys: Receives n keys.

        Raises:
            ShapeMismatchError: An id is neither string nor integer, or the tensor has another shape or dtype.
        """
        if isinstance(stream_ids, torch.Tensor):
            is_plain = type(stream_ids) is torch.Tensor and stream_ids.dtype is torch.int64 and stream_ids.dim() == 1
            keys.fill(stream_ids if is_plain else _checked_tensor(stream_ids))
            if keys.count:
                _mix(keys.numbers, keys.count)
            return
        if type(stream_ids) is not list and type(stream_ids) is not tuple:
            stream_ids = _checked_sequence(stream_ids)
        numbers = keys.resize(len(stream_ids))
        _hash_ids(stream_ids, numbers, self._young, self._old, MOST, LONGEST, stable_hash)
        if len(self._young) >= MOST:
            self._young, self._old = {}, self._young


def keys_of(stream_ids: StreamIds) -> torch.Tensor:
    """Return the keys of many stream ids.

    Args:
        stream_ids: n strings and integers, or an int64 tensor [n] on any device.

    Returns:
        int64 [n] on the CPU.

    Raises:
        ShapeMismatchError: An id is neither string nor integer, or the tensor has another shape or dtype.
    """
    keys = IntBuffer()
    SeenIds().write_keys(stream_ids, keys)
    return keys.tensor


def _checked_tensor(stream_ids: torch.Tensor) -> torch.Tensor:
    if has_no_data(stream_ids):
        raise ShapeMismatchError(
            f"stream_ids must be a plain tensor, got {type(stream_ids).__name__}; a DTensor has to_local()"
        )
    stream_ids = plain_tensor(stream_ids)
    if stream_ids.dtype != torch.int64 or stream_ids.dim() != 1:
        dtype = str(stream_ids.dtype).removeprefix("torch.")
        raise ShapeMismatchError(f"stream_ids must be int64 [n], got {dtype} {list(stream_ids.shape)}")
    return stream_ids.detach()


def _checked_sequence(stream_ids: object) -> list[str | int]:
    if isinstance(stream_ids, str | bytes) or not isinstance(stream_ids, Sequence):
        # A lone string is a sequence of strings to Python; nobody means its letters.
        raise ShapeMismatchError(
            f"stream_ids must be a sequence of ids or an int64 tensor, got {type(stream_ids).__name__}; use a list"
        )
    return list(stream_ids)


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
