"""The rows of a dump as text: by the core, or by its twin in Python, the same to the last byte."""

from __future__ import annotations

import datetime as dt
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from otel_train.native import core
from otel_train.read.dump_blocks import KINDS, Block

CHUNK_BYTES = 1 << 18
"""Bytes of text that the core writes at once, unless one row is longer."""
_MOST_OF_HEAD = 128
"""Bytes that the kind, the numbers and the time of a row take at most."""
_MOST_OF_VALUE = 32
"""Bytes that a value takes at most, with its quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowForm:
    """The text around the cells of a row: kind, step, time, time_ns, and the values."""

    before: tuple[str, str, str, str]
    """Before each of the first four cells."""
    after: str
    """After the row."""
    quote: str
    """Around NaN, Infinity and -Infinity."""
    before_values: Sequence[str]
    """Before each key's value."""
    blanks: bool
    """Whether the text before a value stands there also where nobody measured it."""


def row_texts(block: Block, form: RowForm) -> Iterator[bytes | memoryview]:
    """Yield the text of a block's rows, in their order, in UTF-8; each piece is valid until the next one."""
    if core is None:
        yield _by_python(block, form)
        return
    texts = [text.encode() for text in (*KINDS, *form.before, form.after, form.quote, *form.before_values)]
    joined, ends = bytearray().join(texts), array("q", accumulate(map(len, texts)))
    longest = len(joined) + _MOST_OF_HEAD + _MOST_OF_VALUE * len(form.before_values)
    out, row = bytearray(max(CHUNK_BYTES, longest)), 0
    content = memoryview(out)
    columns = block.order, block.kinds, block.steps, block.times_ns, block.values, block.present
    while row < len(block.order):
        row, length = core.write_rows(joined, ends, *columns, out, int(form.blanks), row)
        yield content[:length]


def _by_python(block: Block, form: RowForm) -> bytes:
    """Return the text of a block's rows; a column that has all values costs a row least."""
    row = "%s".join((*map(_escaped, form.before), ""))
    cells: list[Sequence[object]] = [
        [KINDS[kind] for kind in block.kinds],
        block.steps,
        [rfc3339(time_ns) for time_ns in block.times_ns],
        block.times_ns,
    ]
    for key, before in enumerate(form.before_values):
        column = block.column(key)
        if block.has_all(key) and math.isfinite(sum(column)):
            row += _escaped(before) + "%r"
            cells.append(column)
        else:
            row += "%s"
            blank = before if form.blanks else ""
            cells.append([blank if value is None else before + _number(value, form) for value in block.measured(key)])
    rows = list(map((row + _escaped(form.after)).__mod__, zip(*cells, strict=True)))
    return "".join(map(rows.__getitem__, block.order)).encode()


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _number(value: float, form: RowForm) -> str:
    if math.isfinite(value):
        return repr(value)
    return form.quote + ("NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity") + form.quote


def rfc3339(time_ns: int) -> str:
    """Return a time with all its nanoseconds, in UTC."""
    seconds, nanoseconds = divmod(time_ns, 10**9)
    return f"{_second(seconds)}.{nanoseconds:09d}Z"


@lru_cache(1 << 12)  # fast steps and the kinds of records share theirs
def _second(seconds: int) -> str:
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}"
