"""Accumulate one rank's scalars whose keys came after the first step."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from otel_train.catalogue import Metric, Reduction
from otel_train.exceptions import ConfigurationError
from otel_train.native.records import IntervalState
from otel_train.ring import MOST_LATE_KEYS
from otel_train.step.dtensors import natural_reduction
from otel_train.step.late_values import JOINED, LateValue
from otel_train.step.scalar_recorder import ScalarRecorder
from otel_train.step.user_metrics import check_names, check_user_key

TOO_MANY = (
    f"is one of more than {MOST_LATE_KEYS} keys that came after the first step; give it at the first step, as None "
    "where it has no value yet"
)


class LateScalars:
    """The interval's values under late keys, each a mean, or a norm where its values are parts of one.

    Args:
        schema: All that was agreed on at the first step.
        interval: The recorder's.
        ranks: The ranks of the job that values are reduced over; None for all.
    """

    def __init__(self, schema: Sequence[Metric], interval: IntervalState, ranks: Collection[int] | None = None) -> None:
        self._interval = interval
        self._ranks = ranks
        self._agreed = {metric.name: metric for metric in schema}
        self._late: dict[str, Metric] = {}
        self._refused: dict[str, str] = {}
        """Reason, by key."""
        self._scalars = ScalarRecorder((), ranks)

    def add(self, values: Mapping[str, Any], weight: float) -> dict[str, str]:
        """Add values under keys that the first step did not have; return why some are dropped, by key."""
        dropped: dict[str, str] = {}
        usable = {}
        for key, value in values.items():
            if value is None:
                continue
            if key not in self._late and (reason := self._refusal(key, value)):
                dropped[key] = reason
            else:
                usable[key] = value
        if usable:
            self._interval.late = True
            dropped |= self._scalars.add(usable, weight)
        return dropped

    def _refusal(self, key: Any, value: Any) -> str:
        """Take a new key, or return the reason why it can't be taken."""
        known = self._refused.get(key)
        if known is not None:
            return known
        if len(self._late) >= MOST_LATE_KEYS:
            return TOO_MANY
        try:
            check_user_key(key)
            metric = Metric(key, natural_reduction(value))
            check_names([*self._agreed.values(), *self._late.values(), metric])
        except ConfigurationError as error:
            reason = f"can't be recorded: {error}"
            if len(self._refused) < MOST_LATE_KEYS:
                self._refused[key] = reason
            return reason
        self._late[key] = metric
        self._scalars.extend(metric)
        return ""

    def drain(self) -> Sequence[LateValue]:
        """End the interval and return its values."""
        self._interval.late = False
        sums, _, device = self._scalars.drain()
        parts = [None] * len(sums) if device is None else device[0].unbind()
        return [
            LateValue(metric, sums[2 * index], sums[2 * index + 1], device=parts[2 * index])
            for index, metric in enumerate(self._late.values())
            if sums[2 * index + 1]
        ]

    def can_log(self, key: str) -> bool:
        """Tell whether a key's values may be logged beside the steps: maxima, minima and values by row may not."""
        metric = self._agreed.get(key) or self._late.get(key)
        return metric is None or _stands_beside(metric)

    def logged(self, values: Mapping[str, Any], weight: float, step: int) -> tuple[list[LateValue], dict[str, str]]:
        """Return values that were logged beside the steps, and the reasons of those that are dropped, by key."""
        logged: list[LateValue] = []
        dropped: dict[str, str] = {}
        for key, value in values.items():
            if value is None:
                continue
            metric = self._agreed.get(key) or self._late.get(key)
            if metric is None:
                if reason := self._refusal(key, value):
                    dropped[key] = reason
                    continue
                metric = self._late[key]
            if not _stands_beside(metric):
                kind = f"{metric.reduction} by source" if metric.attribute else metric.reduction
                dropped[key] = f"is a {kind} and can't be logged beside the steps; give it to step() or add()"
                continue
            scalars = ScalarRecorder((metric,), self._ranks)
            if reason := scalars.add({key: value}, weight).get(key, ""):
                dropped[key] = reason
                continue
            sums, _, device = scalars.drain()
            is_sum = metric.reduction is Reduction.SUM
            part = device[0][0] if device is not None else None
            nothing = part is None and not sums[0] and math.copysign(1.0, sums[0]) < 0  # the value may be on a GPU
            absent = nothing if is_sum else not sums[1]
            if not absent:
                logged.append(LateValue(metric, sums[0], 1.0 if is_sum else sums[1], step, part))
        return logged, dropped


def _stands_beside(metric: Metric) -> bool:
    return metric.reduction in JOINED and not metric.measures and not metric.attribute
