"""What a session's options may be."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import otel_train
from otel_train.exceptions import ConfigurationError
from otel_train.step import SessionOptions

SECONDS = ("rank_interval", "reduction_timeout", "close_timeout")
COUNTS = ("log_every", "max_in_flight", "ring_records")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in SECONDS for value in (math.nan, math.inf, -1.0, 10**400, "2", None, True)),
        *((name, value) for name in COUNTS for value in (0, -1, 2.5, math.nan, "2", None, True)),
        ("reduction_timeout", 0),
        ("blocking", "yes"),
        ("rank_interval", Decimal(1)),
    ],
)
def test_a_wrong_option_is_named_by_init(name: str, value: Any, tmp_path: Path) -> None:
    """Nothing that no ring could carry, and no wait without an end, gets past it."""
    with pytest.raises(ConfigurationError, match=rf"^{name} must be"):
        otel_train.init(ring_dir=tmp_path, **{name: value})


def test_numbers_of_numpy_and_fractions_are_options() -> None:
    """They are stored as Python's, which JSON can hold."""
    options = SessionOptions(log_every=np.int64(5), close_timeout=Fraction(1, 2), reduction_timeout=np.float32(2))  # type: ignore[arg-type]
    assert [type(value) for value in (options.log_every, options.close_timeout, options.reduction_timeout)] == [
        int,
        float,
        float,
    ]
