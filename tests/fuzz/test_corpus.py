"""The corpus of the fuzzers: whatever was found once stays mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import CORPUS, TARGETS, load

FILES = [path for target in TARGETS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_each_reader_raises_only_what_it_documents(path: Path) -> None:
    """Real inputs, damaged ones, and each that a reader once failed on."""
    load(path.parent.name)(path.read_bytes())
