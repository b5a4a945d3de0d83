"""Make a run's config in wandb of its job's settings: nested by the parts of their names, the user's own at the top."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from otel_train.catalogue import CONFIG_PREFIX

MOST_PARTS = 8
"""Parts of a name that become keys of their own."""


def config_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config.

    Args:
        settings: By name. Where a name is taken, by the user's own or by a part of others, it stays whole.

    Examples:
        >>> config_of({"ledger.capacity": 64, "config.model.dim": 512, "config.lr": 0.1})
        {'lr': 0.1, 'model': {'dim': 512}, 'ledger': {'capacity': 64}}
    """
    config: dict[str, Any] = {}
    own = {name.removeprefix(CONFIG_PREFIX): value for name, value in settings.items() if is_own(name)}
    rest = {name: value for name, value in settings.items() if not is_own(name)}
    for part in (own, rest):
        for name in sorted(part):
            _put(config, name, deepcopy(part[name]))  # a mapping may get the parts of further names
    return config


def is_own(name: str) -> bool:
    """Tell whether a setting is of the user's own configuration."""
    return name.startswith(CONFIG_PREFIX) and name != CONFIG_PREFIX


def _put(config: dict[str, Any], name: str, value: Any) -> None:
    parts = name.split(".", MOST_PARTS)
    inner: Any = config
    for part in parts[:-1]:
        inner = inner.get(part, {}) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or parts[-1] in inner or not all(parts) or name.startswith("_"):
        # wandb keeps names with an underscore in front to itself.
        config.setdefault(name.lstrip("_") or "_", value)
        return
    for part in parts[:-1]:
        config = config.setdefault(part, {})
    config[parts[-1]] = value
