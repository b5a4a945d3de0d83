"""Bring a user's configuration into the form in which a ring carries it: one fact for each value, bounded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from itertools import count, islice
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from otel_train.catalogue import CONFIG_PREFIX, MAX_TEXT, MOST_NESTED
from otel_train.exceptions import ConfigurationError
from otel_train.json_size import json_size
from otel_train.printable import printable
from otel_train.step.secret_names import is_secret

if TYPE_CHECKING:
    from otel_train.ring import Fact

logger = logging.getLogger(__name__)
MOST_VALUES = 384
"""Values of a configuration, in all of its parts."""
_DEEPEST = 8
_LARGEST = 2**63
_MOST_ITEMS = MAX_TEXT // 2
"""Items that are read of a list and of those in it: the JSON of so many is longer than a fact."""
_MOST_NAMED = 8
"""Values that are named in the warning that they are left out."""


def config_facts(config: Any, *, warns: bool = True) -> dict[str, Fact]:
    """Return a configuration's values, by the keys that lead to each, with dots between.

    Args:
        config: A mapping, a dataclass, or an object with attributes such as argparse's namespace; nested or not. Lists,
            tuples, sets, None and empty mappings stay what they are. Other values that are no text, number or truth
            value become text, and so does a list whose JSON is longer than a ring takes. Longer text is cut. What is a
            secret by its name is left out.
        warns: Whether a warning says what is left out.

    Raises:
        ConfigurationError: It is none of these, is nested too deep, or has too many values.

    Examples:
        >>> config_facts({"lr": 3e-4, "model": {"dim": 512, "act": "gelu"}, "betas": (0.9, 0.95)})
        {'config.lr': 0.0003, 'config.model.dim': 512, 'config.model.act': 'gelu', 'config.betas': [0.9, 0.95]}
    """
    if config is None:
        return {}
    top = _mapping(config) or (vars(config) if hasattr(config, "__dict__") and not isinstance(config, type) else None)
    if top is None and not isinstance(config, Mapping):
        raise ConfigurationError(
            f"config must be a mapping, a dataclass or a namespace, got {config!r:.80}; give a dict by name"
        )
    facts: dict[str, Fact] = {}
    secrets: list[str] = []
    for names, value in _leaves(top or {}, ()):
        if is_secret(names, value):
            secrets.append(".".join(names))
            continue
        if len(facts) >= MOST_VALUES:
            raise ConfigurationError(
                f"config must have at most {MOST_VALUES} values, got more; give the parts that tell runs apart"
            )
        facts[(CONFIG_PREFIX + ".".join(names))[:MAX_TEXT]] = _fact(value, names, secrets)
    if secrets and warns:
        logger.warning(
            "telemetry: config has what may be a secret by its name, which is left out: %s",
            ", ".join(f"{name:.80}" for name in dict.fromkeys(secrets[:_MOST_NAMED]))
            + ("" if len(secrets) <= _MOST_NAMED else ", and more"),
        )
    return facts


def _mapping(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Mapping):
        return value
    if not is_dataclass(value) or isinstance(value, type):
        return None
    # Not `asdict`, which copies what it holds: a model's weights; and a lock can't be copied.
    return {field.name: getattr(value, field.name) for field in fields(value) if hasattr(value, field.name)}


def _leaves(config: Mapping[Any, Any], outer: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if len(outer) >= _DEEPEST:
        raise ConfigurationError(
            f"config must be nested at most {_DEEPEST} deep, got {'.'.join(outer):.80}; flatten it"
        )
    for key, value in config.items():
        inner = _mapping(value)
        names = *outer, _name(key)
        if inner:
            yield from _leaves(inner, names)
        else:
            yield names, value if inner is None else {}


def _name(key: Any) -> str:
    return printable(str(key)) or "?"


def _fact(value: Any, names: tuple[str, ...], secrets: list[str]) -> Fact:
    """Return a value as a fact.

    Args:
        value: The value.
        names: The keys that lead to it.
        secrets: Gets the names of what is left out of it.
    """
    fact = _plain(value, names, secrets, count())
    return _text(fact) if isinstance(fact, list | dict) and json_size(fact) > MAX_TEXT else fact


def _plain(value: Any, names: tuple[str, ...], secrets: list[str], items: Iterator[int], depth: int = 0) -> Fact:
    if value is None or isinstance(value, bool):
        return value
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):  # no number of Python's
        return bool(value)
    if isinstance(value, Integral) and abs(int(value)) < _LARGEST:
        return int(value)
    if isinstance(value, Real) and (number := _float(value)) is not None:
        return number
    mapping = _mapping(value)
    if mapping is None and not _is_list(value):
        return _text(value)
    if depth >= MOST_NESTED:
        return "…"
    if mapping is None:
        listed = islice(_ordered(value), _MOST_ITEMS)
        return [_plain(item, names, secrets, items, depth + 1) for item in listed if next(items) < _MOST_ITEMS]
    plain: dict[str, Fact] = {}
    for key, item in mapping.items():
        inner = *names, _name(key)
        if is_secret(inner, item):
            secrets.append(".".join(inner))
        elif next(items) < _MOST_ITEMS:
            plain[inner[-1]] = _plain(item, inner, secrets, items, depth + 1)
    return plain


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | AbstractSet) and not isinstance(value, str | bytes | bytearray | memoryview)


def _ordered(value: Any) -> Any:
    return sorted(value, key=str) if isinstance(value, AbstractSet) else value


def _float(value: Real) -> float | None:
    """Return a number as a float; None where it is too large for the rings."""
    try:
        number = float(value)
    except OverflowError:  # of an integer, which has more room than a float
        return None
    return number if abs(number) < _LARGEST else None


def _text(value: Any) -> str:
    try:
        # An enumeration of text is text, whose `str` is the member's name.
        text = str.__str__(value) if isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001  # a user's class may raise anything
        text = object.__repr__(value)
    return printable(text)[:MAX_TEXT]
