"""The verdict on a smoke run, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from otel_train.diagnose.judgement import Judgement


def as_json(judgements: Sequence[Judgement]) -> dict[str, dict[str, Any]]:
    """Return what `result.json` says of the metrics."""
    return {
        each.key: {"last": each.last, "mean": each.mean, "max": each.max, "healthy": each.healthy}
        for each in judgements
    }
