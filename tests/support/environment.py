"""The environment of a process that a test starts."""

from __future__ import annotations

import os


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without what would send telemetry elsewhere; children run the same core."""
    kept = "OTEL_TRAIN_PURE"
    own = {
        name: value for name, value in os.environ.items() if name == kept or not name.startswith(("OTEL_", "WANDB_"))
    }
    return {"OMP_NUM_THREADS": "1"} | own | more
