"""What a recorder makes of scalars and sources."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from otel_train.catalogue import ABSENT, Metric, Reduction
from otel_train.exceptions import ConfigurationError
from otel_train.mixing import MixingMeter, SourceMeter
from otel_train.step.recorder import Recorder
from otel_train.step.scalar_recorder import ScalarRecorder
from otel_train.step.value_source import drain_of


@pytest.mark.modes
def test_scalars_follow_their_reductions() -> None:
    """Scalars are accumulated by their reductions: means keep weights, and a tensor with a gradient is a number."""
    metrics = [Metric("m"), Metric("s", Reduction.SUM), Metric("h", Reduction.MAX), Metric("l", Reduction.MIN)]
    recorder = ScalarRecorder(metrics)
    recorder.add({"m": torch.ones(1, requires_grad=True), "s": 2, "h": 3, "l": 4})
    dropped = recorder.add({"m": 5.0, "s": 6, "h": 1, "l": 9, "new": 1.0})
    sums, peaks, _ = recorder.drain()
    assert (sums, peaks, list(dropped)) == ([6.0, 2.0, 8.0], [3.0, -4.0], ["new"])
    assert recorder.drain()[:2] == ([0.0, 0.0, 0.0], [ABSENT, ABSENT])


def test_maximum_keeps_nan() -> None:
    """The largest of a NaN and a number is NaN."""
    recorder = ScalarRecorder([Metric("peak", Reduction.MAX)])
    for value in (1.0, math.nan, 2.0):
        recorder.add({"peak": value})
    assert math.isnan(recorder.drain()[1][0])


def test_source_list_is_not_changed() -> None:
    """A source's list is not added to, and one of another length than its metrics is refused."""

    class KeptList:
        """A source that fills one list anew in each interval."""

        metrics = (Metric("hits", Reduction.SUM), Metric("depth", Reduction.MAX))

        def __init__(self) -> None:
            self.kept = [3.0, 7.0]

        def drain_step_metrics(self, step: int | None = None) -> dict[str, Any]:
            """Return one interval."""
            raise NotImplementedError(step)

        def drain_measurements(self, step: int | None = None) -> list[float]:  # noqa: ARG002  # the protocol's
            """Return one interval."""
            return self.kept

    source = KeptList()
    recorder = Recorder([source], [])
    assert [recorder.drain(step, (0.5, 1, 0.0))[:2] for step in (1, 2)] == [(3.0, 0.5)] * 2
    assert source.kept == [3.0, 7.0]
    for wrong in ([3.0], [3.0, 7.0, 8.0]):
        source.kept = wrong
        with pytest.raises(ConfigurationError, match="its metrics have 2"):
            recorder.drain(3, (0.5, 1, 0.0))


def test_mapping_source_is_packed() -> None:
    """A user's source gives sums, minima and weighted means as a mapping, without the packed order."""

    class OwnSource:
        """A source of a user's own."""

        metrics = (Metric("hits", Reduction.SUM), Metric("depth", Reduction.MIN), Metric("cost"))

        def drain_step_metrics(self, step: int | None = None) -> dict[str, Any]:  # noqa: ARG002  # the protocol's
            """Return one interval."""
            return {"hits": 3, "depth": 7, "cost": (10.0, 4.0)}

    layout, drain = drain_of(OwnSource())
    values = drain(1)
    sums, given = values[: layout.sums], values[layout.sums :]
    assert layout.by_key(sums, layout.complete_peaks(sums, given)) == {"hits": 3.0, "depth": 7.0, "cost": 2.5}


def test_meter_of_mix_is_one() -> None:
    """Two meters of the mix can't go into one record, whatever they hold: the error says how one does for both."""
    for second in ("a", "b"):
        with pytest.raises(ConfigurationError, match="SourceMeter and MixingMeter each measure the mix"):
            Recorder([SourceMeter({"a": 1}), MixingMeter(1, [second], {second: 1})], ())
