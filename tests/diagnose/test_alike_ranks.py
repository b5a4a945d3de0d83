"""Ranks that draw in the same order are a note of their own."""

from __future__ import annotations

from io import StringIO
from typing import cast

import pytest
from rich.console import Console

from otel_train.catalogue import rows
from otel_train.diagnose.alike_ranks import find_alike
from otel_train.diagnose.examine import examine, exit_code
from otel_train.diagnose.finding import Severity
from otel_train.diagnose.terminal import print_findings
from tests.support.mixing_schemes import (
    Scheme,
    alike_ranks,
    in_groups,
    independent_rows,
    mixed_job,
)

WEIGHTS = {"code": 1.0, "prose": 3.0}


@pytest.mark.parametrize(
    ("scheme", "ranks", "summary"),
    [
        (alike_ranks, 2, "2 of 2 ranks draw in the same order"),
        (alike_ranks, 64, "64 of 64 ranks draw in the same order"),
        (in_groups(4), 8, "8 of 8 ranks draw in the same order as another, in 2 groups"),
    ],
)
def test_alike_ranks_are_noted(scheme: Scheme, ranks: int, summary: str) -> None:
    """How many they are; a note is no fault, and what they draw is not a drift."""
    history = mixed_job(scheme, weights=WEIGHTS, ranks=ranks, steps=40)
    findings = examine(history)
    [note] = [finding for finding in findings if finding.severity is Severity.NOTE]
    assert note.summary == summary
    assert exit_code(findings) == 0


@pytest.mark.parametrize(("scheme", "size"), [(alike_ranks, 8), (in_groups(2), 2)])
def test_cluster_values_are_enough(scheme: Scheme, size: int) -> None:
    """Without the ranks' rings the cluster's values tell how many are alike."""
    history = mixed_job(scheme, weights=WEIGHTS, ranks=8, steps=200)
    history.order_groups = ()
    [note] = find_alike(history)
    assert note.summary == f"about {size:.1f} of 8 ranks draw in the same order as any one of them"


@pytest.mark.parametrize("groups_known", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 64])
def test_different_ranks_are_not_noted(ranks: int, *, groups_known: bool) -> None:
    """Ranks that draw for themselves give no note, at any number of steps."""
    for steps in (1, 2, 5, 30):
        history = mixed_job(independent_rows, weights=WEIGHTS, ranks=ranks, steps=steps, seed=steps)
        if not groups_known:
            history.order_groups = ()
        assert find_alike(history) == []


def test_note_is_printed_with_remedy() -> None:
    """A terminal shows a note with what to do, and says that nothing is wrong."""
    history = mixed_job(alike_ranks, weights=WEIGHTS, steps=40)
    console = Console(file=StringIO(), width=200)
    print_findings(history, examine(history), console)
    shown = cast("StringIO", console.file).getvalue()
    assert "NOTE stream_mixing/alike_ranks: 2 of 2 ranks draw in the same order" in shown
    assert rows.ALIKE_RANKS.remedy in shown
    assert shown.rstrip().endswith("nothing is wrong")


def test_one_source_is_no_order() -> None:
    """Where there is nothing to draw, equal orders mean nothing; neither do a few picks."""
    assert find_alike(mixed_job(alike_ranks, weights={"code": 1.0}, steps=40)) == []
    assert find_alike(mixed_job(independent_rows, weights=WEIGHTS, real=[0.0, 1.0], steps=40)) == []
    assert find_alike(mixed_job(alike_ranks, weights=WEIGHTS, rows=2, steps=3)) == []
