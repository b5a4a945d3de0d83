"""The examples of loaders that a user would copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integrations.support.loader_example import check_example
from tests.support.torchrun import ROOT

EXAMPLES = sorted((ROOT / "examples" / "loaders").glob("*.py"))
ELSEWHERE = "mosaic_streams"
"""Example that `test_mosaic.py` runs, whose jobs it must not run beside."""
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("path", [path for path in EXAMPLES if path.stem != ELSEWHERE], ids=lambda path: path.stem)
def test_example_has_right_mix(path: Path, tmp_path: Path) -> None:
    """Every step of an example has picks of both ranks, each source has tokens, and the mix is healthy."""
    check_example(path, tmp_path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_loader_examples_stay_short(path: Path) -> None:
    """Each example has under 60 lines, and its docstring says in two how to run it."""
    lines = path.read_text().splitlines()
    assert len(lines) < 60
    assert lines[2].startswith("Run it ")
