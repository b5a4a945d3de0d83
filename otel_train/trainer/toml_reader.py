"""Read a TOML table into a frozen dataclass: every unknown key and every wrong type is one clear line."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from otel_train.exceptions import ConfigurationError

T = TypeVar("T")


def read_table(kind: type[T], table: Mapping[str, Any], where: str = "") -> T:
    """Return a `kind` with the fields that the table gives.

    Args:
        kind: A dataclass whose fields are numbers, strings, booleans, enums, tuples, dicts, or dataclasses again.
        table: The TOML table.
        where: Dotted name of the table, for messages.

    Raises:
        ConfigurationError: A key is unknown (the nearest one is named), or a value has the wrong type.
    """
    assert dataclasses.is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    given: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{where}.{key}" if where else key
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
            raise ConfigurationError(f"{name} is not a setting; {hint}")
        given[key] = _convert(hints[key], value, name)
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in given
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigurationError(f"{where or 'the file'} lacks {missing[0]!r}; add it")
    return kind(**given)


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{name} must be a table, got {value!r}")
        return read_table(hint, value, name)
    if origin in (typing.Union, types.UnionType):
        return _convert(next(argument for argument in arguments if argument is not type(None)), value, name)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigurationError(f"{name} must be a list, got {value!r}")
        return tuple(_convert(arguments[0], item, f"{name}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{name} must be a table, got {value!r}")
        return {key: _convert(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
    return _convert_scalar(hint, value, name)


def _convert_scalar(hint: type[Any], value: Any, name: str) -> Any:
    if issubclass(hint, StrEnum):
        if value not in list(hint):
            raise ConfigurationError(f"{name} must be one of {', '.join(hint)}, got {value!r}")
        return hint(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigurationError(f"{name} must be below 1e308, got {value.bit_length()} bits") from None
    if type(value) is not hint:
        words = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
        raise ConfigurationError(f"{name} must be {words[hint]}, got {value!r}")
    return value
