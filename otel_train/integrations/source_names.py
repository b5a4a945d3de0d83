"""Names and weights of the sources of a loader that knows them by position or by path only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from otel_train.exceptions import ConfigurationError


def check_kind(dataset: Any, attribute: str, kind: str) -> None:
    """Raise ConfigurationError where a dataset, which has an attribute, should be given and something else is."""
    if not hasattr(dataset, attribute):
        raise ConfigurationError(
            f"track needs a {kind}, got {type(dataset).__name__}; put loaders and stages around what it returns"
        )


def source_names(paths: Sequence[str | None], names: Sequence[str] | None = None) -> list[str]:
    """Return a name for each source: those given, or the last folder of each one's path.

    Args:
        paths: Folder or URL of each source, None where it has none.
        names: Name of each source, as many as there are paths; two may be equal.

    Raises:
        ConfigurationError: The names are not as many as the sources, or the paths do not tell the sources apart.

    Examples:
        >>> source_names(["s3://data/code/", "/data/prose"])
        ['code', 'prose']
    """
    if names is not None:
        given = list(names)
        if isinstance(names, str) or len(given) != len(paths):
            raise ConfigurationError(f"names must have one for each of the {len(paths)} sources, got {names!r:.80}")
        return given
    last = [(path or "").rstrip("/").rpartition("/")[2] for path in paths]
    if not all(last) or len(set(last)) != len(last):
        raise ConfigurationError(
            f"the folders {', '.join(map(str, paths))} do not tell the sources apart by their last part; give names=[…]"
        )
    return last


def weights_by_name(names: Iterable[str], weights: Iterable[float]) -> dict[str, float]:
    """Return the sum of the weights of each name.

    Examples:
        >>> weights_by_name(["code", "prose", "code"], [1, 2, 1])
        {'code': 2.0, 'prose': 2.0}
    """
    sums: dict[str, float] = {}
    for name, weight in zip(names, weights, strict=True):
        sums[name] = sums.get(name, 0.0) + float(weight)
    return sums
