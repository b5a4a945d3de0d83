"""What a session's options may be."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import otel_train
from otel_train.exceptions import ConfigurationError
from otel_train.step import SessionOptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *product(
            ("rank_interval", "reduction_timeout", "close_timeout"),
            (math.nan, math.inf, -1.0, 10**400, "2", None, True),
        ),
        *product(("log_every", "max_in_flight"), (0, -1, 2.5, math.nan, "2", None, True)),
        *product(("ring_records", "ring_bytes"), (0, -1, 2.5, math.nan, "2", True)),
        ("reduction_timeout", 0),
        ("blocking", "yes"),
        ("rank_interval", Decimal(1)),
    ],
)
def test_init_names_wrong_options(name: str, value: Any, tmp_path: Path) -> None:
    """An option that no ring could carry, or a wait without an end, is refused with its name."""
    with pytest.raises(ConfigurationError, match=rf"^{name} must be"):
        otel_train.init(ring_dir=tmp_path, **{name: value})


def test_init_names_unknown_options() -> None:
    """A misspelt option is Python's own TypeError, which names `init()`."""
    with pytest.raises(TypeError, match=r"^init\(\) got an unexpected keyword argument 'log_evry'"):
        otel_train.init(log_evry=10)  # type: ignore[call-arg]


def test_init_has_each_option() -> None:
    """Each option of a session is an argument of `init`, with the same default; the environment's stay None."""
    given = {name: argument.default for name, argument in signature(otel_train.init).parameters.items()}
    options = SessionOptions()
    from_environment = {"ring_records": None, "ring_bytes": None}
    assert given | {name: getattr(options, name) for name in SessionOptions.__slots__} | from_environment == given


def test_numpy_numbers_are_options() -> None:
    """NumPy's integers, and fractions, are stored as Python's, which JSON can hold."""
    options = SessionOptions(log_every=np.int64(5), close_timeout=Fraction(1, 2), reduction_timeout=np.float32(2))  # type: ignore[arg-type]
    assert [type(value) for value in (options.log_every, options.close_timeout, options.reduction_timeout)] == [
        int,
        float,
        float,
    ]
