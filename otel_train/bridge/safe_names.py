"""Derive from a run's id, which anybody may send, one that is safe as a wandb id and as part of a path."""

from __future__ import annotations

import hashlib
import re

from otel_train.printable import printable

_SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DERIVED = re.compile(r".*-[0-9a-f]{16}")


def safe_id(run_id: str) -> str:
    """Return `run_id` if it is safe, else a readable part of it and its hash.

    A safe id that looks like a derived one is derived again, so that nobody can choose an id that equals another's.

    Args:
        run_id: Any text.

    Returns:
        1 to 64 characters of A-Z, a-z, 0-9, underscore and hyphen; different for different run ids.
    """
    if _SAFE.fullmatch(run_id) and not _DERIVED.fullmatch(run_id):
        return run_id
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", run_id[:40]).strip("-") or "run"
    return f"{slug}-{hashlib.sha256(run_id.encode(errors='surrogatepass')).hexdigest()[:16]}"


def display_name(run_id: str) -> str:
    """Return `run_id` as one printable line of at most 128 characters."""
    return printable(run_id[:128])
