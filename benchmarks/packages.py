"""The packages that each section needs: which of them are missing here, and the command that installs them."""

from __future__ import annotations

import sys

from otel_train.extras import install_command, is_installed

_JOB = ("torch", "wandb", "grpc")
NEEDED: dict[str, tuple[str, ...]] = {
    "hot_path": (*_JOB, "prometheus_client", "torchmetrics", "nv_one_logger", "traceml_ai"),
    "cold": (*_JOB, "prometheus_client", "traceml_ai"),
    "disabled": ("torch", "wandb"),
    "interference": _JOB,
    "reduction": ("torch", "torchmetrics"),
    "ledger": ("torch",),
    "ledger_alone": ("torch",),
    "sidecar": ("grpc",),
    "bridge": ("grpc", "wandb"),
    "end_to_end": _JOB,
    "scale": ("torch", "grpc"),
    "memory": ("torch",),
    "start": (*_JOB, "prometheus_client"),
    "gpu": _JOB,
    "batch_count": ("torch",),
    "by_source": ("torch",),
    "disk": (),
    "tools": ("wandb",),
}
"""Modules that a section needs, in the order of `python -m benchmarks`."""
PICTURE = "matplotlib"
"""What draws the results that are kept."""


def missing(names: list[str], *, kept: bool) -> list[str]:
    """Return the modules that these sections need, and keeping their results does, and that are not installed.

    Args:
        names: Names of sections.
        kept: Whether the results are kept, with a picture of them.
    """
    needed = dict.fromkeys([*(module for name in names for module in NEEDED[name]), *([PICTURE] if kept else [])])
    return [module for module in needed if not is_installed(module)]


def refusal(modules: list[str]) -> str:
    """Return the line that says what is missing, with the command that installs it in this environment."""
    command = f"{sys.executable} -m {install_command('all', 'bench')}"
    return f"the benchmarks need packages that are not installed ({', '.join(modules)}): {command}"
