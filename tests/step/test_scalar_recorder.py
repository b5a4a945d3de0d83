"""What is accumulated on a device joins the packed vector there; on a GPU it is the same code with another device."""

from __future__ import annotations

import math

import pytest
import torch

from otel_train.catalogue import Layout, Metric, Reduction
from otel_train.step.rank_group import RankGroup
from otel_train.step.recorder import Measurements
from otel_train.step.reduction import Reducer
from otel_train.step.scalar_recorder import ScalarRecorder

METRICS = (
    Metric("host", Reduction.SUM),
    Metric("mean", Reduction.MEAN),
    Metric("total", Reduction.SUM),
    Metric("largest", Reduction.MAX),
    Metric("smallest", Reduction.MIN),
)
ON_DEVICE = {metric.name: metric.reduction for metric in METRICS[1:]}


def accumulate(*steps: float, dtype: torch.dtype = torch.float32) -> ScalarRecorder:
    """Return a recorder that took each step's value on the device, for all scalars but the first."""
    recorder = ScalarRecorder(METRICS)
    for value in steps:
        recorder.add({"host": 1.0})
        for name in ON_DEVICE:
            recorder._add_on_device(recorder._slots[name], torch.tensor([value], dtype=dtype), 1.0)
    return recorder


@pytest.mark.parametrize("value", [3.0, -1.0, math.nan, math.inf])
def test_device_values_equal_host(value: float) -> None:
    """Means, sums, maxima and minima that are accumulated on a device equal the host's; NaN stays NaN."""
    layout = Layout(METRICS)
    reducer = Reducer(layout, RankGroup.alone(), max_in_flight=1, timeout=1.0)
    sums, peaks, device = accumulate(1.0, value).drain()
    reducer.launch(1, 0, Measurements((*sums, *peaks, *[0.0] * layout.peaks), device))
    on_host = ScalarRecorder(METRICS)
    for number in (1.0, value):
        on_host.add({"host": 1.0} | dict.fromkeys(ON_DEVICE, number))
    expected = layout.by_key(*on_host.drain()[:2], [0.0] * layout.peaks)
    (reduced,) = reducer.harvest()
    assert layout.by_key(*layout.split(reduced.values)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.modes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8, torch.float64])
def test_small_types_lose_nothing(dtype: torch.dtype) -> None:
    """Sums and negated minima of small types are exact, though beyond what these types hold."""
    _, _, device = accumulate(*[-128.0] * 3, dtype=dtype).drain()
    assert device is not None
    assert (device[0].tolist(), device[1].tolist()) == ([0.0, -384.0, 0.0, -384.0], [-128.0, 128.0])


def test_rank_knows_host_values_only() -> None:
    """What is on a device is absent among the rank's own values, not zero; in the next interval it is there again."""
    layout, recorder = Layout(METRICS), accumulate(3.0)
    recorder.add({"mean": 5.0})
    sums, peaks, device = recorder.drain()
    assert device is not None
    assert layout.by_key(recorder.own(sums), peaks) == {"host": 1.0}
    recorder.add({"mean": 5.0, "total": 2.0})
    sums, peaks, _ = recorder.drain()
    assert layout.by_key(recorder.own(sums), peaks) == {"mean": 5.0, "total": 2.0}


def test_next_interval_begins_empty() -> None:
    """An interval begins empty, and has no device's part where no value came from one."""
    recorder = accumulate(5.0)
    recorder.drain()
    assert recorder.drain()[2] is None
    recorder._add_on_device(recorder._slots["largest"], torch.tensor(2.0), 1.0)
    _, _, device = recorder.drain()
    assert device is not None
    assert device[1].tolist() == [2.0, -math.inf]
