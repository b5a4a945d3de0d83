"""Rows of a dump as text, by the core as by its twin: numbers as repr has them, times as RFC 3339."""

from __future__ import annotations

import random
from array import array
from typing import TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_train.native import core
from otel_train.read import row_texts
from otel_train.read.dump_blocks import KINDS, Block
from otel_train.read.row_texts import RowForm
from otel_train.ring import Identity

pytestmark = pytest.mark.skipif(core is None, reason="the native core is not built, or not chosen")
IDENTITY = Identity(run_id="run", attempt=1, rank=0, world_size=1, host="node0")
T = TypeVar("T")
LONGS = st.integers(-(2**63), 2**63 - 1)
DECIMALS = st.builds(lambda digits, places: digits / 10**places, st.integers(-(10**17), 10**17), st.integers(0, 24))
NEAR_POWERS = st.builds(
    lambda base, power, apart: base**power * (1 + apart * 2**-52),
    st.sampled_from([2.0, 10.0]),
    st.integers(-30, 30),
    st.integers(-3, 3),
)
NUMBERS = st.one_of(st.floats(), st.floats(-1, 1), st.floats(1e-7, 1e15), DECIMALS, NEAR_POWERS)
JSON_FORM = RowForm(
    before=('{"kind": "', '", "step": ', ', "time": "', '", "time_ns": '),
    after="}\n",
    quote='"',
    before_values=(', "100%s é": ', ', "b": '),
    blanks=False,
)
CSV_FORM = RowForm(before=("a,", ",", ",", ","), after="\n", quote="", before_values=(",", ","), blanks=True)


def check(block: Block, form: RowForm, chunk_bytes: int = row_texts.CHUNK_BYTES) -> None:
    """Compare the core's text, written in pieces of that size or of one row, with the twin's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_texts, "CHUNK_BYTES", chunk_bytes)
        by_core = b"".join(map(bytes, row_texts.row_texts(block, form)))
        patch.setattr(row_texts, "core", None)
        by_twin = b"".join(row_texts.row_texts(block, form))
    assert by_core == by_twin


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """Return rows of two keys' values, some of which are missing."""
    rows = draw(st.integers(0, 5))

    def some(strategy: st.SearchStrategy[T], count: int = rows) -> list[T]:
        return draw(st.lists(strategy, min_size=count, max_size=count))

    return Block(
        IDENTITY,
        array("q", draw(st.permutations(range(rows)))),
        bytearray(some(st.integers(0, len(KINDS) - 1))),
        array("q", some(LONGS)),
        array("q", some(LONGS)),
        array("d", some(NUMBERS, 2 * rows)),
        bytearray(some(st.integers(0, 1), 2 * rows)),
    )


@given(blocks(), st.sampled_from([JSON_FORM, CSV_FORM]), st.integers(1, 2000))
def test_core_writes_rows_as_twin(block: Block, form: RowForm, chunk_bytes: int) -> None:
    """The core writes the same bytes as its twin, whatever the rows hold, and in whatever pieces."""
    check(block, form, chunk_bytes)


@given(st.lists(NUMBERS, min_size=1))
@example([0.0, -0.0, 0.1 + 0.2, 1e-7, 9.999999999999999e-05, 1e-4, 1e15, 999999999999999.9, 1e16, 2.0**-20, 5e-324])
def test_numbers_are_as_repr(numbers: list[float]) -> None:
    """A number's text is the shortest that reads as it, of those the nearest, in the form of repr."""
    check(a_column(numbers), CSV_FORM)


def test_many_numbers_are_as_repr() -> None:
    """So are numbers of 15 to 17 digits, of which a few in ten thousand would come out wrong by a careless rounding."""
    source = random.Random(5)
    numbers = [source.uniform(0, 10.0 ** source.randrange(-7, 16)) for _ in range(50_000)]
    check(a_column([*numbers, *(round(number, source.randrange(16)) for number in numbers)]), CSV_FORM)


def a_column(numbers: list[float]) -> Block:
    """Return rows of one key's values; the other one's are missing."""
    rows = len(numbers)
    none = array("q", bytes(8 * rows))
    values, present = array("d", [*numbers, *numbers]), bytearray(b"\1" * rows + b"\0" * rows)
    return Block(IDENTITY, array("q", range(rows)), bytearray(rows), none, none, values, present)
