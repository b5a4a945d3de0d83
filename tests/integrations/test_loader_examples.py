"""The examples of loaders that a user would copy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_train.catalogue import rows
from tests.integrations.support.loader_job import RANKS, Outcome, run_program
from tests.support.torchrun import ROOT

EXAMPLES = sorted((ROOT / "examples" / "loaders").glob("*.py"))
pytestmark = pytest.mark.integrations


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_has_right_mix(path: Path, tmp_path: Path) -> None:
    """Every step of an example has picks of both ranks, each source has tokens, and the mix is healthy."""
    [environment] = re.findall(r"tests/integrations/requirements/(\w+)\.in", path.read_text())
    variables = {"OTEL_TRAIN_RING_DIR": str(tmp_path / "rings"), "ACCELERATE_USE_CPU": "true", "HF_HOME": str(tmp_path)}
    run_program(environment, path, seconds=200, **variables)
    outcome = Outcome(tmp_path)
    values = outcome.values
    assert len(values) >= 20
    assert all(row[rows.PICKS.wandb_key] >= RANKS for row in values.values())
    tokens = [value for key, value in values[max(values)].items() if key.startswith(rows.TOKENS.wandb_key)]
    assert len(tokens) > 1
    assert sum(tokens) > 0
    assert outcome.complaints() == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_loader_examples_stay_short(path: Path) -> None:
    """Each example has under 60 lines, and its docstring says in two how to run it."""
    lines = path.read_text().splitlines()
    assert len(lines) < 60
    assert lines[2].startswith("Run it ")
