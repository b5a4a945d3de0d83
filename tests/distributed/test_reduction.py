"""Reductions over four real ranks: what they give, and that no rank's trouble is another's hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Run all cases once and return what each rank said, by case."""
    out = tmp_path_factory.mktemp("reduction")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    command += [str(Path(__file__).with_name("ranks.py")), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OTEL_TRAIN_SIDECAR": "external"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(4)]
    return {case: [each[case] for each in ranks] for case in ranks[0]}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # Ages 1, 1, 4 and 1.
        ("oldest_reader", [[7 / 4, 4.0, 2.0]] * 4),
        ("goes_on", [{"x": 1.5}] * 4),
        # Step 3 costs itself only: 0 + 1 + 2 + 3 in the others.
        ("failing_source", [[6.0, 6.0, None, 6.0, 6.0]] * 4),
        ("short_flush", [[3, 3.0]] * 4),
        # Data groups are ranks 0 and 2, and 1 and 3: the rank that is named is the job's, not the group's.
        ("mesh", [[2.0, 2.0], [3.0, 3.0], [2.0, 2.0], [3.0, 3.0]]),
    ],
)
def test_every_rank_gets_the_values_worked_out_by_hand(
    case: str, expected: list[Any], said: dict[str, list[Any]]
) -> None:
    """Means, maxima with their rank, and values after a step that one rank could not measure."""
    assert said[case] == expected


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("missing_sum_key", "ConfigurationError: rank 1: sum_keys names 'n'"),
        ("later_keys", "SchemaMismatchError: metric 'y' is given by rank 1 and not by rank 0"),
        ("later_sum", "SchemaMismatchError: metric 'x' is ['1', 'gauge', 'mean'] on rank 0"),
        ("no_number", "ConfigurationError: rank 1: metric 'x' must be a number"),
    ],
)
def test_one_ranks_mistake_is_an_error_on_all(case: str, complaint: str, said: dict[str, list[Any]]) -> None:
    """At the first call and at later ones; nobody hangs, and no process is aborted."""
    assert all(each.startswith(complaint) for each in said[case])
