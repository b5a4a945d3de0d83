"""Keys and values of a row."""

from __future__ import annotations

import math

from otel_train.bridge.decode import Kind
from otel_train.bridge.wandb_rows import STEP_KEY, build_row
from otel_train.catalogue import ATTEMPT_KEY, PARTIAL_KEY, cluster_name, rows

PICKS = cluster_name(rows.PICKS.name)


def test_counter_gives_exact_difference() -> None:
    """A cumulative counter's row value is the difference to the row before, exact beyond 2**53."""
    row, changed = build_row([(PICKS, "", Kind.CUMULATIVE, 2**60 + 3)], {(PICKS, ""): 2**60}, attempt=5, step=9)
    assert row == {rows.PICKS.wandb_key: 3, STEP_KEY: 9, ATTEMPT_KEY: 5}
    assert changed == {(PICKS, ""): 2**60 + 3}


def test_reset_counter_starts_at_zero() -> None:
    """A total smaller than the one before counts from 0."""
    row, _ = build_row([(PICKS, "", Kind.CUMULATIVE, 4)], {(PICKS, ""): 100}, attempt=1, step=1)
    assert row[rows.PICKS.wandb_key] == 4


def test_nan_stays_out_of_totals() -> None:
    """NaN goes into its row and not into the totals."""
    row, changed = build_row([(PICKS, "", Kind.CUMULATIVE, math.nan)], {}, attempt=1, step=1)
    assert math.isnan(row[rows.PICKS.wandb_key])
    assert changed == {}


def test_late_row_has_no_counts() -> None:
    """A late row has gauges, and no counts: a later step's row has them."""
    arrived = [(PICKS, "", Kind.CUMULATIVE, 4), (cluster_name("train/loss"), "", Kind.VALUE, 0.5)]
    row, changed = build_row(arrived, {}, attempt=1, step=2, late=True)
    assert row == {"train/loss": 0.5, STEP_KEY: 2, ATTEMPT_KEY: 1, PARTIAL_KEY: 1}
    assert changed == {}


def test_reserved_keys_are_protected() -> None:
    """A user's scalar named like wandb's own keys is left out, one named like ours is overwritten."""
    names = [cluster_name(name) for name in ("_step", "_timestamp", ATTEMPT_KEY)]
    row, _ = build_row([(name, "", Kind.VALUE, 99.0) for name in names], {}, attempt=1, step=2)
    assert row == {STEP_KEY: 2, ATTEMPT_KEY: 1}


def test_modality_extends_key() -> None:
    """Values of a modality have a key of their own."""
    name = cluster_name(rows.MODALITY_SHARE.name)
    row, _ = build_row([(name, m, Kind.VALUE, 0.5) for m in ("code", "prose")], {}, attempt=1, step=1)
    assert {f"{rows.MODALITY_SHARE.wandb_key}/code", f"{rows.MODALITY_SHARE.wandb_key}/prose"} < row.keys()
