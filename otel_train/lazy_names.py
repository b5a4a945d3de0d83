"""Resolve a package's public names when they are first used: a process pays for those modules alone that it uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from otel_train.import_errors import naming_extra


def lazy_names(
    package: dict[str, Any], modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package whose modules are loaded when a name of theirs is used.

    Args:
        package: The package's `globals()`, which keep what was resolved.
        modules: The names that each of its modules gives to the package, in one string, by module.
    """
    own = package["__name__"]
    homes = {name: f"{own}.{module}" for module, names in modules.items() for name in names.split()}

    def resolve(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {own!r} has no attribute {name!r}")
        with naming_extra(f"{own}.{name}"):
            value = package[name] = getattr(import_module(homes[name]), name)
        return value

    return resolve, lambda: sorted({*package, *homes} - {lazy_names.__name__, "TYPE_CHECKING"})
