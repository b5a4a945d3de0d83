"""Numbers of wandb's records, read by the core as JSON's own reader has them."""

from __future__ import annotations

import json
import math
import struct
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_train.catalogue import rows
from otel_train.native import core
from otel_train.read.row_spool import RowSpool
from tests.support.train_job import add_record

pytestmark = pytest.mark.skipif(core is None, reason="the native core is not built, or not chosen")
NUMBERS = (
    "-0",
    "-0.0",
    "0e5",
    "1E+3",
    "1e-400",
    "1e400",
    "9007199254740993",
    "123456789012345678901234567890",
    "9007199254740993.0",
    "0.1000000000000000055",
    "-1234567890123456789e-27",
    "1234567890123456789e-28",
    "2.5e-22",
)
ANY_NUMBER = r"-?[1-9][0-9]{0,20}(\.[0-9]{1,20})?(e-?[0-9]{1,2})?"
NONE = (
    "01",
    "1.",
    ".5",
    "+1",
    "1e",
    "- 1",
    "0x1",
    "nan",
    "-",
    "",
    " 1",
    "1 ",
    "[1]",
    '{"a":1}',
    '"a\\n"',
    '"é"',
    "1" * 65,
)
"""What is no number of JSON, and texts that are left to the twin."""


def taken(text: str, **heads: str) -> tuple[bool, float]:
    """Return whether the core read a row with a value, and that value; `heads` are numbers that the row is told by."""
    record = import_module("wandb.proto.wandb_internal_pb2").Record()
    texts: dict[str, Any] = {"_step": "0", rows.STEP.wandb_key: "3", "a.b": text, **heads}
    for key, value in texts.items():
        record.history.item.add(nested_key=key.split("."), value_json=value)
    spool = RowSpool()
    data = bytearray()
    add_record(data, record.SerializeToString())
    is_taken = spool.take(bytes(data), 0) == len(data)
    assert len(spool) == is_taken
    return is_taken, spool.column("a.b")[0] if is_taken else math.nan


def check(text: str) -> None:
    """Compare the bits with those of JSON's reader."""
    assert struct.pack("<d", taken(text)[1]) == struct.pack("<d", float(json.loads(text))), text


@pytest.mark.parametrize("text", NUMBERS)
def test_number_is_exact(text: str) -> None:
    """A number is rounded once, whatever its form; a whole one has no negative zero."""
    check(text)


@given(st.one_of(st.floats(allow_nan=False).map(json.dumps), st.from_regex(ANY_NUMBER, fullmatch=True)))
def test_any_number_is_exact(text: str) -> None:
    """Any number has the bits that JSON's reader gives it."""
    check(text)


@pytest.mark.parametrize("text", NONE)
def test_odd_text_is_left(text: str) -> None:
    """What is no plain number or text is left to the twin, and nothing of its row stays."""
    assert not taken(text)[0]


@pytest.mark.parametrize("text", ["null", "true", '"1.5"', "NaN"])
def test_no_number_has_none(text: str) -> None:
    """Text, null, true and NaN are read, and give no value."""
    is_taken, value = taken(text)
    assert is_taken
    assert math.isnan(value)


@pytest.mark.parametrize("key", ["_step", rows.STEP.wandb_key])
def test_inexact_step_is_left(key: str) -> None:
    """A step that a float64 can't hold, which its neighbour would be taken for, is left to the twin, who can."""
    assert taken("1", **{key: str(2**53 - 1)})[0]
    assert not taken("1", **{key: str(2**53 + 1)})[0]
