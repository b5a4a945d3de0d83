"""Bytes from outside against each reader of them: whatever comes, a reader raises only what it documents."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
"""A folder for each target: real inputs made small, what reached new places in the source, and what once was a find."""
TARGETS = ("job_toml", "otlp", "ring", "ring_content", "wandb_file", "wandb_record")


def load(target: str) -> Callable[[bytes], None]:
    """Return a target's function; it returns, or raises what is a find."""
    run: Callable[[bytes], None] = import_module(f"tests.fuzz.targets.{target}").run
    return run
