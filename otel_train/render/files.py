"""Write the generated files into a checkout, or find those that differ from what would be written."""

from __future__ import annotations

from pathlib import Path

from otel_train.exceptions import ConfigurationError
from otel_train.render.docs import metrics_page


def generated_files() -> dict[str, str]:
    """Return the content of each generated file by its path in the checkout."""
    return {"docs/metrics.md": metrics_page()}


def drifted(root: Path) -> list[str]:
    """Return the generated files that are missing or differ, by path."""
    return [
        name
        for name, content in generated_files().items()
        if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != content
    ]


def write_files(root: Path) -> list[str]:
    """Write the generated files that differ, and return their paths.

    Raises:
        ConfigurationError: `root` is no checkout of otel_train.
    """
    if not (root / "otel_train" / "catalogue").is_dir():
        raise ConfigurationError(f"{root} is no checkout of otel_train; run this at the top of one, or give --root")
    names = drifted(root)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(generated_files()[name], encoding="utf-8")
    return names
