"""Check the arguments of the mixing dataset and its meter that need more than their own value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.distributed as dist

from otel_train.arguments import MAX_SHOWN, check_ranks_meet, finite_number, whole_number
from otel_train.exceptions import ConfigurationError
from otel_train.mixing.dealing import apportion_slots
from otel_train.torch_modes import outside_modes


def checked_slots(readers: int | None, slots: Sequence[str] | None, weights: Mapping[str, float]) -> tuple[str, ...]:
    """Return the modality of each slot, dealt by the weights where only their number is given.

    Raises:
        ConfigurationError: Neither is given, both differ, or a slot's modality has no stream.
    """
    if readers is not None:
        readers = whole_number("readers", readers, least=1, remedy="give the number of slots")
    if slots is None:
        if readers is None:
            raise ConfigurationError("readers must be given (the number of slots), or slots (their modalities)")
        return apportion_slots(readers, weights)
    if isinstance(slots, str | bytes) or not isinstance(slots, Iterable) or not (names := tuple(slots)):
        raise ConfigurationError(f"slots must name the modality of at least one slot, got {slots!r:.{MAX_SHOWN}}")
    for modality in names:
        if modality not in weights:
            raise ConfigurationError(
                f"slots names the modality {modality!r}, which no stream has; known: {', '.join(weights)}"
            )
    if readers not in (None, len(names)):
        raise ConfigurationError(f"readers is {readers}, but slots names {len(names)}; leave one out")
    return names


def checked_bias(bias: Sequence[float] | None, slots: int) -> tuple[float, ...]:
    """Return a factor for each slot, 1 where none is given.

    Raises:
        ConfigurationError: There is another number of them, or one is negative or not finite.
    """
    if bias is None:
        return (1.0,) * slots
    if isinstance(bias, str | bytes) or not isinstance(bias, Iterable):
        raise ConfigurationError(f"reader_bias must be {slots} numbers, got {bias!r:.{MAX_SHOWN}}; give one a slot")
    factors = tuple(finite_number(f"reader_bias[{slot}]", factor) for slot, factor in enumerate(bias))
    if len(factors) != slots:
        raise ConfigurationError(f"reader_bias must be {slots} numbers, got {len(factors)}; give one a slot")
    return factors


def checked_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return rank and world size: torch.distributed's where none is given.

    Raises:
        ConfigurationError: Only one is given, one breaks its rule, or neither is given and the launcher's ranks
            have not met.
    """
    if (rank is None) != (world_size is None):
        raise ConfigurationError("give both rank and world_size, or neither")
    if rank is None or world_size is None:
        if dist.is_available() and dist.is_initialized():
            return dist.get_rank(), dist.get_world_size()
        check_ranks_meet("StreamMixingDataset", "give rank and world_size")
        return 0, 1
    world_size = whole_number("world_size", world_size, least=1, remedy="give the number of ranks")
    rank = whole_number("rank", rank, least=0, remedy="give this rank's number")
    if rank >= world_size:
        raise ConfigurationError(f"rank must be in 0 .. {world_size - 1}, got {rank}")
    return rank, world_size


@outside_modes
def _flat(value: Any) -> list[Any]:
    """Return the numbers of a tensor, an array or a list, however nested, in order."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [number for part in value for number in _flat(part)]
    if not isinstance(value, int | float):
        raise TypeError(f"a {type(value).__name__} is not a number")
    return [value]


def checked_slot(slot: object, slots: int) -> int:
    """Return the number of a slot of a meter that has so many.

    Raises:
        ConfigurationError: It is not one of them.
    """
    index = whole_number("slot", slot, least=0, remedy=f"this meter has slots 0 to {slots - 1}")
    if index >= slots:
        raise ConfigurationError(
            f"slot must be 0 to {slots - 1}, got {index}; make the meter with as many slots as there are readers"
        )
    return index


def checked_pick(slot: object, rows: object, tokens: object, slots: int) -> tuple[int, int, float]:
    """Return the arguments of `MixingMeter.pick` as numbers.

    Raises:
        ConfigurationError: One is not a number, or breaks its rule.
    """
    count = whole_number("rows", rows, least=0, remedy="give the number of rows that were picked")
    if count > 1 << 53:
        # Beyond that a float, which the counts are, is not exact.
        raise ConfigurationError("rows must be at most 2**53, got more; give the number of rows that were picked")
    size = finite_number("tokens", tokens, remedy="give the number of tokens in the rows")
    return checked_slot(slot, slots), count, size


def batch_numbers(batch: Mapping[str, Any], name: str) -> list[Any]:
    """Return the numbers that a batch has under a name, one a row.

    Raises:
        ConfigurationError: It has none, or one is negative or not finite.
    """
    try:
        values = _flat(batch[name])
    except Exception as error:
        raise ConfigurationError(
            f"the batch must have {name!r}, a number or a tensor of numbers, one a row ({type(error).__name__}: "
            f"{error!s:.{MAX_SHOWN}}); keep both 'pick' and 'length' of the rows"
        ) from error
    if not all(type(value) is int and value >= 0 for value in values):
        for value in values:
            finite_number(name, value, remedy="keep the row's own")
    return values
