"""Say what a fact of a ring can be: a plain value, or a list or mapping of plain values of bounded size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, Union

from otel_train.catalogue import MAX_TEXT, MOST_NESTED
from otel_train.json_size import json_size

Fact: TypeAlias = Union[str, int, float, bool, list["Fact"], dict[str, "Fact"], None]  # noqa: UP007  # refers to itself
"""Value of a setting of a job, such as the steps in an interval; as JSON has it."""
MAX_FACTS = 512
LARGEST_FACT = 2.0**63
"""Bound of the numbers among the facts; NaN and infinite ones are left out too."""


def usable_facts(facts: Any) -> dict[str, Fact]:
    """Return the facts that a ring can carry: they are for people, and must damage nothing.

    A user's source may give any object as one, and a number may be infinite (an interval without an end).

    Args:
        facts: By name.

    Examples:
        >>> usable_facts({"lr": 0.1, "betas": [0.9, 0.95], "model": object(), "interval": float("inf")})
        {'lr': 0.1, 'betas': [0.9, 0.95]}
    """
    usable: dict[str, Fact] = {}
    for name, value in facts.items() if isinstance(facts, Mapping) else ():
        if len(usable) < MAX_FACTS and isinstance(name, str) and _is_text(name) and is_fact(value):
            usable[name] = value
    return usable


def is_fact(value: Any) -> bool:
    """Tell whether a value can be a fact.

    Args:
        value: A list or mapping counts as its JSON, which has as many characters as a text at most.
    """
    return _is_plain(value, 0) and (not isinstance(value, list | dict) or json_size(value) <= MAX_TEXT)


def _is_plain(value: Any, depth: int) -> bool:
    match value:
        case None:
            return True
        case str():
            return _is_text(value)
        case int() | float():
            return abs(value) < LARGEST_FACT
        case list():
            return depth < MOST_NESTED and all(_is_plain(item, depth + 1) for item in value)
        case dict():
            named = all(isinstance(name, str) and _is_text(name) for name in value)
            return named and depth < MOST_NESTED and all(_is_plain(item, depth + 1) for item in value.values())
    return False


def _is_text(text: str) -> bool:
    return len(text) <= MAX_TEXT and text.isprintable()
