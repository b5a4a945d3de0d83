"""Fixtures of the tests of `send`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rank_ring import rank, receiver

__all__ = ["base", "rank", "receiver"]


@pytest.fixture
def base() -> Iterator[Path]:
    """Return a directory that every user may enter, as a node's directory for rings."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
