"""The options of a session, each of them checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from otel_train.exceptions import ConfigurationError
from otel_train.ring import MAX_RECORDS, RingSize


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Options of a session: how it reduces and ends; `init` takes each as an argument.

    Examples:
        >>> from otel_train.step import SessionOptions
        >>> SessionOptions(log_every=10).close_timeout
        2.0
    """

    log_every: int = 1
    """Steps in an interval."""
    blocking: bool = False
    """Whether `step` waits for the cluster's values and returns them."""
    max_in_flight: int = 4
    """Unfinished reductions beyond which the training thread waits for the oldest."""
    reduction_timeout: float = 10.0
    """Seconds that a wait for a reduction takes at most."""
    close_timeout: float = 2.0
    """Seconds that `close` waits at most, for the reductions under way and for the sidecar together."""
    ring_records: int = RingSize().records
    """Records that a ring holds at most."""
    ring_bytes: int = RingSize().max_bytes
    """Bytes that a ring takes at most; the rings of all ranks of a machine take a quarter of what is free at most."""

    def __post_init__(self) -> None:
        if not isinstance(self.blocking, bool):
            raise ConfigurationError(f"blocking must be True or False, got {self.blocking!r:.80}")
        for name in ("log_every", "max_in_flight", "ring_records", "ring_bytes"):
            object.__setattr__(self, name, _checked_count(name, getattr(self, name)))
        if self.ring_records > MAX_RECORDS:
            raise ConfigurationError(f"ring_records must be at most {MAX_RECORDS}, got {self.ring_records}")
        object.__setattr__(self, "close_timeout", checked_seconds("close_timeout", self.close_timeout))
        timeout = checked_seconds("reduction_timeout", self.reduction_timeout)
        object.__setattr__(self, "reduction_timeout", timeout)
        if not timeout:
            raise ConfigurationError("reduction_timeout must be positive, got 0; 10 seconds is the default")


def _checked_count(name: str, value: Any) -> int:
    """Return a count as an int; NumPy's integers are as good as Python's."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} must be positive and a whole number, got {value!r:.80}")
    return int(value)


def checked_seconds(name: str, value: Any) -> float:
    """Return a duration as a finite float that is not negative.

    Args:
        name: The option, as error messages have it.
        value: What the user gave.

    Raises:
        ConfigurationError: It is not such a number.
    """
    try:
        seconds = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an int beyond a float
        seconds = math.inf
    if not 0 <= seconds < math.inf:
        raise ConfigurationError(f"{name} must be a finite number of seconds, not negative, got {value!r:.80}")
    return seconds
