"""Hide from wandb what the environment says about one job's run: a bridge has many runs, each with its own identity."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager

PREFIX = "WANDB_"
KEPT = frozenset(
    PREFIX + name
    for name in (
        # The server, the user there, and where runs go.
        *("BASE_URL", "APP_URL", "API_KEY", "IDENTITY_TOKEN_FILE", "CREDENTIALS_FILE", "CONFIG_DIR"),
        *("ENTITY", "ORGANIZATION", "USERNAME", "USER_EMAIL"),
        # How it is reached.
        *("INSECURE_DISABLE_SSL", "HTTP_TIMEOUT", "FILE_PUSHER_TIMEOUT", "HTTP_PROXY", "HTTPS_PROXY", "X_PROXIES"),
        *("X_EXTRA_HTTP_HEADERS", "_PROXIES", "_EXTRA_HTTP_HEADERS"),
        # Files of wandb's own, and its reports.
        *("CACHE_DIR", "DATA_DIR", "ARTIFACT_DIR", "DEBUG", "CORE_DEBUG", "ERROR_REPORTING"),
    )
)
"""The variables that reach wandb: all others could make two runs one (`WANDB_RUN_ID`, `WANDB_SWEEP_ID`), change what a
run is (`WANDB_RESUME`, `WANDB_MODE`), or put it into another process (`WANDB_SERVICE`)."""

REPORTS = PREFIX + "ERROR_REPORTING"
"""The variable that has wandb tell its maker of errors and of each row's time; true by default."""


def without_reports(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have wandb not report on itself, where the environment does not ask for it; call it before wandb is loaded.

    It would take a tenth of a row's time, two threads, and requests to a server that an offline bridge has no need of.
    """
    environ.setdefault(REPORTS, "false")


def left_out(environ: Mapping[str, str]) -> list[str]:
    """Return the names of wandb's variables that do not reach it, sorted."""
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in KEPT)


@contextmanager
def neutral(environ: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Remove those variables from an environment while the block runs; what is set meanwhile stays."""
    taken = {name: environ.pop(name) for name in left_out(environ)}
    try:
        yield
    finally:
        for name, value in taken.items():
            environ.setdefault(name, value)
