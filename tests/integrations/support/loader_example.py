"""Run an example of a loader as a user would, and check the mix that it measures."""

from __future__ import annotations

import re
from pathlib import Path

from otel_train.catalogue import rows
from tests.integrations.support.loader_job import RANKS, Outcome, run_program


def check_example(path: Path, folder: Path) -> None:
    """Run an example: each step has picks of both ranks, each source has tokens, and the mix is healthy.

    Args:
        path: Of the example.
        folder: An empty one.
    """
    [environment] = re.findall(r"tests/integrations/requirements/(\w+)\.in", path.read_text())
    variables = {"OTEL_TRAIN_RING_DIR": str(folder / "rings"), "ACCELERATE_USE_CPU": "true", "HF_HOME": str(folder)}
    run_program(environment, path, seconds=200, **variables)
    outcome = Outcome(folder)
    values = outcome.values
    assert len(values) >= 20
    assert all(row[rows.PICKS.wandb_key] >= RANKS for row in values.values())
    tokens = [value for key, value in values[max(values)].items() if key.startswith(rows.TOKENS.wandb_key)]
    assert len(tokens) > 1
    assert sum(tokens) > 0
    assert outcome.complaints() == []
