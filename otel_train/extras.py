"""The packages that come with each of the project's extras, and how to install them from where the user stands."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from otel_train.exceptions import ConfigurationError

PACKAGES = {
    "train": ("torch",),
    "bridge": ("google.rpc", "grpc", "grpc_health", "h11", "opentelemetry.proto", "wandb"),
    "render": ("grafana_foundation_sdk", "yaml"),
    "inspect": ("pyarrow",),
    "workspace": ("wandb_workspaces",),
}
"""Modules by extra, as they are imported."""


def missing_extras(*extras: str) -> list[str]:
    """Return those of the extras that lack a package here."""
    return [extra for extra in extras if not all(map(is_installed, PACKAGES[extra]))]


def require_extras(what: str, *extras: str) -> None:
    """Check that the packages of all these extras are installed.

    Raises:
        ConfigurationError: Some are not; the message has the command that installs them.
    """
    missing = missing_extras(*extras)
    if missing:
        raise ConfigurationError(f"{what} needs packages that are not installed: {install_command(*missing)}")


def is_installed(module: str) -> bool:
    """Tell whether a module can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that the module would be in
        return False


def extra_of(module: str) -> str | None:
    """Return the extra that a module comes with; None for any other module."""
    for extra, packages in PACKAGES.items():
        if any(module == package or module.startswith(f"{package}.") for package in packages):
            return extra
    return None


def install_command(*extras: str) -> str:
    """Return the command that adds extras to this installation: from an index, a file, a repository or a checkout."""
    names = ",".join(extras)
    checkout = Path(__file__).parents[1]
    # A package of others that is badly made may leave its pyproject.toml beside the installed packages.
    if (checkout / "pyproject.toml").is_file() and (checkout / "constraints.txt").is_file():
        return f"pip install -e '{checkout}[{names}]'"
    from importlib import metadata  # noqa: PLC0415  # takes 20 ms, of a command that may want nothing else

    try:
        origin = json.loads(metadata.distribution("otel-train").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        origin = {}
    address = direct_reference(origin)
    return f"pip install 'otel-train[{names}] @ {address}'" if address else f"pip install 'otel-train[{names}]'"


def direct_reference(origin: dict[str, Any]) -> str:
    """Return the address for pip of what `direct_url.json` describes (PEP 610); empty for an index.

    A repository's stands there without the name of its program, which pip wants before it, and its commit apart.
    """
    url, repository = origin.get("url", ""), origin.get("vcs_info")
    if repository:
        url = f"{repository['vcs']}+{url}@{repository['commit_id']}"
    return f"{url}#subdirectory={origin['subdirectory']}" if "subdirectory" in origin else url
