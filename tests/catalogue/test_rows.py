"""Rows of the catalogue: their names, units, ranges and remedies."""

from __future__ import annotations

import math
import re

import pytest

from otel_train.catalogue import (
    CATALOGUE,
    JUDGED,
    Metric,
)


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_rows_follow_naming_rules(metric: Metric) -> None:
    """Lower case with dots, no suffix for counters, counted things in braces, a description."""
    assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", metric.name)
    assert not metric.name.endswith("_total")
    assert not metric.name.startswith("otel.")
    assert metric.unit in ("1", "s", "By") or re.fullmatch(r"\{[a-z]+\}", metric.unit)
    assert metric.description.endswith(".")


@pytest.mark.parametrize("metric", JUDGED, ids=lambda metric: metric.name)
def test_judged_rows_have_remedies(metric: Metric) -> None:
    """Each says when it needs attention and what to do then; a range that everything is in is none."""
    assert metric.remedy
    assert metric.healthy is not None
    assert metric.healthy.low > 0 or metric.healthy.high < math.inf
