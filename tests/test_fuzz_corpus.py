"""The corpus of the fuzzers: an input that once made a reader fail stays fixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import CORPUS, TARGETS, load

FILES = [path for target in TARGETS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_readers_raise_documented_errors(path: Path) -> None:
    """On real inputs, damaged ones, and each that a reader once failed on."""
    load(path.parent.name)(path.read_bytes())
