"""Name the run that a worker of Ray Train is part of: the same over Ray's retries, another one for each `fit()`."""

from __future__ import annotations

import sys

_CONTEXT = "ray.train.v2._internal.execution.context"
"""Module that knows the run's own id. Ray's public context has the name only, which a second `fit()` may have too."""
_MAX_NAME = 96
"""Characters of the name of Ray's run that a run's id keeps."""


def ray_run_id() -> str:
    """Return the run's id as Ray Train has it, its name and its own id; empty outside of Ray's workers.

    Ray is never imported here: its workers have loaded it.

    Examples:
        >>> from otel_train.step.ray_train import ray_run_id
        >>> ray_run_id()
        ''
    """
    context = sys.modules.get(_CONTEXT)
    if context is None:
        return ""
    try:
        run = context.get_train_context().train_run_context
        name, own = str(run.run_config.name), str(run.run_id)[:12]
    except Exception:  # noqa: BLE001  # no worker's process, or a release of Ray that keeps it elsewhere
        return ""
    return f"{name[:_MAX_NAME]}-{own}" if name.isprintable() else own
