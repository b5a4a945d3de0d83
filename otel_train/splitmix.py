"""SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators") for integers and tensors."""

from __future__ import annotations

import torch

INCREMENT = 0x9E3779B97F4A7C15
"""Step of the generator's state: 2**64 divided by the golden ratio."""
_MASK = 2**64 - 1
_FACTOR_1, _FACTOR_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(value: int) -> int:
    """Return the finaliser of 64 bits, unsigned: a bijection that mixes all of them."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * _FACTOR_1) & _MASK
    value = ((value ^ (value >> 27)) * _FACTOR_2) & _MASK
    return value ^ (value >> 31)


def mix_tensor(values: torch.Tensor) -> torch.Tensor:
    """Return the finaliser of each value, int64 [n] like the values, whose bits are taken as unsigned."""
    values = (values ^ _shift_right(values, 30)) * signed(_FACTOR_1)
    values = (values ^ _shift_right(values, 27)) * signed(_FACTOR_2)
    return values ^ _shift_right(values, 31)


def signed(value: int) -> int:
    """Return 64 bits as a signed number, as an int64 holds them."""
    return value - 2**64 if value >= 2**63 else value


def _shift_right(values: torch.Tensor, shift: int) -> torch.Tensor:
    """Shift int64 right as if unsigned."""
    return (values >> shift) & ((1 << (64 - shift)) - 1)
