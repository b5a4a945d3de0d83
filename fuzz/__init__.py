"""Feed bytes from outside to each reader of them: whatever comes, a reader raises only what it documents."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
"""A folder for each target: real inputs made small, inputs that reached new code, and those that once failed."""
TARGETS = ("job_toml", "otlp", "ring", "ring_content", "wandb_file", "wandb_record")


def load(target: str) -> Callable[[bytes], None]:
    """Return a target's function, which raises where the reader fails."""
    run: Callable[[bytes], None] = import_module(f"fuzz.targets.{target}").run
    return run
