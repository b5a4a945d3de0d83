"""Check what a caller gives, and name the argument, its rule and the value where it breaks one."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from otel_train.exceptions import ConfigurationError, OtelTrainError, StateMismatchError

MAX_SHOWN = 80
"""Characters of a value that an error shows."""


def check_ranks_meet(made: str, remedy: str, environ: Mapping[str, str] = os.environ) -> None:
    """Check, where torch.distributed is not initialised, that the launcher has started no other rank.

    Each would take itself for the only one: read all the data, hold all the states.

    Args:
        made: What is made, such as "StreamMixingDataset".
        remedy: What to do where the processes are jobs of their own.
        environ: The environment.

    Raises:
        ConfigurationError: It has started several.
    """
    for variable in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"):
        count = environ.get(variable, "")
        if count.isascii() and count.isdigit() and int(count) > 1:
            raise ConfigurationError(
                f"{made} was made before torch.distributed was initialised, and {variable} is {count}: each rank would "
                f"take itself for the only one; call init_process_group() before it, or {remedy}"
            )


def whole_number(name: str, value: object, *, least: int, remedy: str = "give a whole number") -> int:
    """Return an argument that is a count, as an int: also one of NumPy, or a tensor of one element.

    Raises:
        ConfigurationError: It is not a whole number (a bool is not one), or smaller than `least`.
    """
    rule = {0: "a whole number that is not negative", 1: "a positive whole number"}.get(least, "a whole number")
    try:
        number = operator.index(value if not isinstance(value, bool) else None)  # type: ignore[arg-type]
    except Exception as error:
        raise ConfigurationError(f"{name} must be {rule}, got {value!r:.{MAX_SHOWN}}; {remedy}") from error
    if number < least:
        raise ConfigurationError(f"{name} must be {rule}, got {number}; {remedy}")
    return number


def finite_number(name: str, value: object, *, remedy: str = "give a number") -> float:
    """Return an argument that is an amount, as a float: a number that is finite and not negative.

    A tensor of one element is one, on any device; a text and a bool are not.

    Raises:
        ConfigurationError: It is not such a number.
    """
    try:
        number = float(value if not isinstance(value, bool | str | bytes | bytearray) else None)  # type: ignore[arg-type]
    except Exception as error:
        raise ConfigurationError(
            f"{name} must be a finite number that is not negative, got {value!r:.{MAX_SHOWN}}; {remedy}"
        ) from error
    if not (math.isfinite(number) and number >= 0):
        raise ConfigurationError(f"{name} must be a finite number that is not negative, got {number}; {remedy}")
    return number


def check_fields(state: object, fields: Collection[str], owner: str) -> None:
    """Check that a saved state is a mapping with all of these fields.

    Raises:
        StateMismatchError: It is another class's state, or one that another version saved.
    """
    if not isinstance(state, Mapping):
        raise StateMismatchError(
            f"a state of {owner} must be what its state_dict() returned, got {type(state).__name__}"
        )
    missing = [field for field in fields if field not in state]
    if missing:
        raise StateMismatchError(
            f"a state of {owner} must have {', '.join(map(repr, fields))}; {missing[0]!r} is missing from one with "
            f"{sorted(map(str, state))!r:.200}: it is the state of another class, or of another version of otel_train"
        )


@contextmanager
def reading_state(owner: str) -> Iterator[None]:
    """Turn the error of a state that is damaged inside into one that says so.

    Raises:
        StateMismatchError: What is done within this context met a value of a wrong form.
    """
    try:
        yield
    except OtelTrainError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise StateMismatchError(
            f"the state of {owner} has a value of a wrong form ({type(error).__name__}: {error!s:.200}); "
            "give what its state_dict() returned, unchanged"
        ) from error


def shown_names(names: Collection[Any], limit: int = 5) -> str:
    """Return names as a message has them: the first few, and how many there are where that is not all."""
    first = ", ".join(repr(name) for name in sorted(names)[:limit])
    return first if len(names) <= limit else f"{first} and {len(names) - limit} more"
