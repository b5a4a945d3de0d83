"""This machine's wall clock beside others': from when it is wrong, and what that costs and needs."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Self

LIMIT = 5.0
"""Seconds beyond its uncertainty from which an offset is wrong: services of time keep clocks to milliseconds."""
OFFSET_FACT, UNCERTAINTY_FACT = "telemetry.clock.offset", "telemetry.clock.uncertainty"
"""Facts of a ring: offset of its rank's clock against the other ranks', in seconds."""
WALL_FACT, BOOT_FACT = "telemetry.clock.wall", "telemetry.clock.boot"
"""Facts of a ring: its machine's two clocks when the ranks compared theirs, in seconds."""
CLOCK_FACTS = frozenset({OFFSET_FACT, UNCERTAINTY_FACT, WALL_FACT, BOOT_FACT})
COSTS = (
    "Its values are stored under wrong times, and a receiver may refuse them: Prometheus does what is over 10 minutes "
    "ahead, or older than its out-of-order window"
)
_TIMEX = 512
"""Bytes that are enough for the kernel's `struct timex`."""
_TIME_ERROR = 5


class Reference(StrEnum):
    """Clock that a machine's is compared with: the values of the attribute `clock.reference`."""

    RANKS = "ranks"
    """The other ranks'."""
    RECEIVER = "receiver"
    """The receiver's, by the date of its answers."""


class ClockOffset(NamedTuple):
    """Offset of a clock against a reference.

    Examples:
        >>> from otel_train.host_clock import ClockOffset
        >>> str(ClockOffset(-90.0, 0.5)), ClockOffset(-90.0, 0.5).wrong, ClockOffset(5.2, 0.5).wrong
        ('90.0 s behind', True, False)
        >>> ClockOffset(-90.0, 0.5).certain, ClockOffset(15.0, 15.5).certain
        (-89.5, 0.0)
    """

    seconds: float
    """How far it is ahead; negative where it is behind."""
    uncertainty: float
    """Seconds that the true offset is from it at most."""

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self | None:
        """Return the one that a ring's facts have; None without one."""
        numbers = _numbers(facts, OFFSET_FACT, UNCERTAINTY_FACT)
        return None if numbers is None else cls(*numbers)

    @property
    def facts(self) -> dict[str, float]:
        """The facts of a ring that have it."""
        return {OFFSET_FACT: self.seconds, UNCERTAINTY_FACT: self.uncertainty}

    @property
    def wrong(self) -> bool:
        """Whether it is beyond the limit for certain."""
        return abs(self.certain) > LIMIT

    @property
    def certain(self) -> float:
        """The part of it that is certain, with its sign: 0 where the clock may be right."""
        return math.copysign(max(0.0, abs(self.seconds) - self.uncertainty), self.seconds)

    def __str__(self) -> str:
        return f"{abs(self.seconds):.1f} s {'ahead' if self.seconds > 0 else 'behind'}"


class ClockReading(NamedTuple):
    """Two clocks of this machine, read together.

    Examples:
        >>> from otel_train.host_clock import ClockReading
        >>> ClockReading(3700.0, 110.0).set_since(ClockReading(1000.0, 10.0))
        2600.0
    """

    wall: float
    """Seconds since the epoch."""
    boot: float
    """Seconds since the machine's start; those of a suspend count."""

    @classmethod
    def now(cls) -> Self:
        """Read them: of three times the one with the least between them, for a process may be held up anywhere."""
        readings = [(_boot(), time.time_ns() / 1e9, _boot()) for _ in range(3)]
        before, wall, after = min(readings, key=lambda reading: reading[2] - reading[0])
        return cls(wall, (before + after) / 2)

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self | None:
        """Return the one that a ring's facts have; None without one."""
        numbers = _numbers(facts, WALL_FACT, BOOT_FACT)
        return None if numbers is None else cls(*numbers)

    @property
    def facts(self) -> dict[str, float]:
        """The facts of a ring that have it."""
        return {WALL_FACT: self.wall, BOOT_FACT: self.boot}

    def set_since(self, earlier: ClockReading) -> float:
        """Return by how many seconds the wall clock was set forward since an earlier reading; negative for back."""
        return (self.wall - earlier.wall) - (self.boot - earlier.boot)


def remedy() -> str:
    """Return what to do about this machine's clock, with the kernel's word on whether anything keeps it."""
    kept = is_kept()
    word = {True: "", False: " (its kernel says that nothing keeps it)", None: ""}[kept]
    return f"Set it there: start chrony or systemd-timesyncd{word}"


def is_kept() -> bool | None:
    """Tell whether the kernel says that a service of time keeps this machine's clock; None where it says nothing.

    A word of advice only: a clock may be right without one, and a service may keep it without telling the kernel.
    """
    try:
        library = ctypes.CDLL(None, use_errno=True)
        state = library.adjtimex(ctypes.create_string_buffer(_TIMEX))  # zeros: nothing is changed
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def own_name() -> str:
    """Return this machine's name."""
    return os.uname().nodename


def _boot() -> float:
    # Unlike CLOCK_MONOTONIC, this one goes on while the machine is suspended: clock_gettime(2).
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _numbers(facts: Mapping[str, Any], *names: str) -> list[float] | None:
    values = [float(value) for name in names if isinstance(value := facts.get(name), int | float)]
    return values if len(values) == len(names) else None
