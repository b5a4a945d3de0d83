"""Bring a user's configuration into the form in which a ring carries it: one fact for each value, bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from otel_train.catalogue import CONFIG_PREFIX, MAX_TEXT
from otel_train.exceptions import ConfigurationError
from otel_train.printable import printable

if TYPE_CHECKING:
    from otel_train.ring import Fact

MOST_VALUES = 384
"""Values of a configuration, in all of its parts."""
_DEEPEST = 8
_LARGEST = 2**63


def config_facts(config: Any) -> dict[str, Fact]:
    """Return a configuration's values, by the keys that lead to each, with dots between.

    Args:
        config: A mapping, a dataclass, or an object with attributes such as argparse's namespace; nested or not. Values
            that are no text, number or truth value become text. Text that is longer than a ring takes is cut.

    Raises:
        ConfigurationError: It is none of these, is nested too deep, or has too many values.

    Examples:
        >>> config_facts({"lr": 3e-4, "model": {"dim": 512, "act": "gelu"}})
        {'config.lr': 0.0003, 'config.model.dim': 512, 'config.model.act': 'gelu'}
    """
    if config is None:
        return {}
    top = _mapping(config) or (vars(config) if hasattr(config, "__dict__") and not isinstance(config, type) else None)
    if top is None and not isinstance(config, Mapping):
        raise ConfigurationError(
            f"config must be a mapping, a dataclass or a namespace, got {config!r:.80}; give a dict by name"
        )
    facts: dict[str, Fact] = {}
    for name, value in _leaves(top or {}, ()):
        if len(facts) >= MOST_VALUES:
            raise ConfigurationError(
                f"config must have at most {MOST_VALUES} values, got more; give the parts that tell runs apart"
            )
        facts[(CONFIG_PREFIX + name)[:MAX_TEXT]] = _plain(value)
    return facts


def _mapping(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Mapping):
        return value
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else None


def _leaves(config: Mapping[Any, Any], outer: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if len(outer) >= _DEEPEST:
        raise ConfigurationError(
            f"config must be nested at most {_DEEPEST} deep, got {'.'.join(outer):.80}; flatten it"
        )
    for key, value in config.items():
        inner = _mapping(value)
        names = *outer, printable(str(key)) or "?"
        if inner:
            yield from _leaves(inner, names)
        else:
            yield ".".join(names), value


def _plain(value: Any) -> Fact:
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral) and abs(int(value)) < _LARGEST:
        return int(value)
    if isinstance(value, Real) and abs(float(value)) < _LARGEST:
        return float(value)
    return printable(str(value))[:MAX_TEXT]
