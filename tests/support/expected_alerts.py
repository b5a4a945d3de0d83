"""What each alert says of recorded runs, in plain Python from their records."""

from __future__ import annotations

import math
from collections.abc import Sequence

from otel_train.catalogue import JUDGED, Metric, healthy_range
from otel_train.catalogue.series_names import ATTEMPT, HOST, RANK
from otel_train.render import alerts
from tests.support.expected_panels import AGAINST, REFUSED_FOR, figure, state, wrong_clocks
from tests.support.expected_values import FRAME, Expected, Values, View, by_attempt
from tests.support.recorded_runs import REASON, Interval


def condition(row: Metric, keys: Sequence[str]) -> Expected:
    """Expect a headline alert's value where it is out of its range."""

    def compute(intervals: Sequence[Interval], moment: float) -> float:
        values = []
        for key in keys:
            healthy, value = healthy_range(key), figure(key, row, intervals, moment)
            if not (math.isnan(value) or healthy.low <= value <= healthy.high):
                values.append(value)
        return values[0] if values else math.nan

    return by_attempt(compute)


def newly_lost(view: View, moment: float) -> Values:
    """Return how many records were lost in the last ten minutes on each host."""
    values: Values = {}
    for attempt in view.attempts:
        if not math.isnan(told := state(attempt, moment, FRAME)):
            before = state(attempt, moment - FRAME, 3600.0)
            grown = attempt.dropped_at(told) - (0 if math.isnan(before) else attempt.dropped_at(before))
            if grown:
                values[str(attempt.number), f"node{(attempt.ranks - 1) // 8}"] = float(grown)
    return values


def newly_refused(view: View, moment: float) -> Values:
    """Return how many points were refused in the last ten minutes on each host."""
    return {(*key, REASON): value for key, value in newly_lost(view, moment).items()}


ALERTS = {
    alert.name: condition(next(row for row in JUDGED if row.name == alert.metric), alert.keys)
    for alert in alerts()
    if alert.keys
} | {
    "OtelTrainRecordsDropped": Expected((ATTEMPT, HOST), newly_lost),
    "OtelTrainPointsRefused": Expected((ATTEMPT, HOST, REFUSED_FOR), newly_refused),
    "OtelTrainClockWrong": Expected((ATTEMPT, RANK, HOST, AGAINST), wrong_clocks),
    "": Expected((ATTEMPT,), lambda *_: {}),
}
"""Of each alert the value where its condition holds; "" stands for those that a sound run never fires."""
