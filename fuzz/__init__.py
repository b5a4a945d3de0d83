"""Feed bytes to whatever must bear any: readers of what comes from outside, which raise only what they document, and
the native core, which does what its twins in Python do.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
"""A folder for each target: real inputs made small, inputs that reached new code, and those that once failed."""
READERS = ("job_toml", "otlp", "otlp_json", "ring", "ring_content", "wandb_file", "wandb_record")
OF_CORE = ("core_calls", "core_packing", "core_picks", "core_table")
TARGETS = READERS + OF_CORE


def load(target: str) -> Callable[[bytes], None]:
    """Return a target's function, which raises where the reader fails."""
    run: Callable[[bytes], None] = import_module(f"fuzz.targets.{target}").run
    return run
