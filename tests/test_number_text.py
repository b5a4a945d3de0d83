"""Numbers, time spans and curves as text."""

from __future__ import annotations

import math

import pytest

from otel_train.number_text import byte_size, distinct_labels, duration, short_number, sparkline


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e-300, 0.5, 123.456, 99999.99, 1e7, 1e300, -1e300, math.inf, math.nan])
def test_numbers_fit_their_column(value: float) -> None:
    """A number and a time span have seven characters at most, and a curve has a blank for a missing value."""
    assert len(short_number(value)) <= 7
    assert len(duration(min(abs(value), 1e9))) <= 7
    assert len(sparkline([value, 1.0], 4)) == 4


@pytest.mark.parametrize(
    ("values", "labels"), [([0.0, 0.5, 1.0], ["0", "0.5", "1"]), ([1000.001, 1000.002], ["1000.001", "1000.002"])]
)
def test_labels_differ(values: list[float], labels: list[str]) -> None:
    """Values that hardly differ get the digits that tell them apart."""
    assert distinct_labels(values, lambda value: f"{value:.3g}") == labels


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30, "1 GiB"), (2**45, "32 TiB")]
)
def test_bytes_have_a_unit(count: int, text: str) -> None:
    """The unit is the largest that the number fills."""
    assert byte_size(count) == text
