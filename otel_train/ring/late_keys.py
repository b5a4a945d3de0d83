"""Late keys: the table of those that came after a ring's schema, and the parts that hold a record's values of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from mmap import mmap
from zlib import crc32

from otel_train.catalogue import NOTHING, Layout, Metric, Reduction
from otel_train.exceptions import ConfigurationError, RingError
from otel_train.ring.file_format import (
    KEY_ROW,
    KEY_TABLE_SIZE,
    LATE,
    MOST_LATE_KEYS,
    NO_KEY,
    ORDINAL_SHIFT,
    PART,
    PART_SHIFT,
    Geometry,
)
from otel_train.ring.schema import Schema, dump_key, load_key

LateValue = tuple[int, float, float]
"""A late key's value: its index in the ring's table, the total, the weight."""
_INDEX = (1 << PART_SHIFT) - 1


def part_of(word: int) -> tuple[int, int]:
    """Return a part's index among those of its record, and their number, from the word with its kind."""
    return word >> ORDINAL_SHIFT & _INDEX, word >> ORDINAL_SHIFT + PART_SHIFT


def part_word(index: int, count: int) -> int:
    """Return the word of a part; see `part_of`."""
    return PART | (index | count << PART_SHIFT) << ORDINAL_SHIFT


def dump_parts(late: Sequence[LateValue], width: int, most: int) -> list[list[float]]:
    """Return the values of the parts; what is too much for the ring is left out.

    Args:
        late: The values.
        width: float64 in a record.
        most: Parts at most.
    """
    stream = [float(number) for value in late for number in value][: most * width // LATE * LATE]
    stream += [NO_KEY] * (-len(stream) % max(1, width))
    return [stream[begin : begin + width] for begin in range(0, len(stream), max(1, width))]


def load_parts(parts: Sequence[float], keys: int) -> list[tuple[float, float]]:
    """Return total and weight of each late key; zeros for one without a value."""
    pairs = [(0.0, 0.0)] * keys
    for index, total, weight in zip(*(parts[offset::LATE] for offset in range(LATE)), strict=False):
        if 0 <= index < keys:
            before = pairs[int(index)]
            pairs[int(index)] = before[0] + total, before[1] + weight
    return pairs


def _is_same(metric: Metric, own: Metric | None) -> bool:
    """Tell whether a metric is the schema's of that name, where it has one: a description is for people."""
    return own is None or Schema((metric,)).describe() == Schema((own,)).describe()


def _flat(metric: Metric, pair: tuple[float, float]) -> tuple[float, ...]:
    """Return a key's total and weight as a layout has them: a sum is one number, `NOTHING` where it has no value."""
    if metric.reduction is Reduction.SUM:
        return (pair[0] + 0.0 if pair[1] else NOTHING,)
    return pair


class NewKeys:
    """The writer's end of the key table.

    Args:
        schema: The ring's, which has the other keys.
        geometry: The ring's.
    """

    def __init__(self, schema: Schema, geometry: Geometry) -> None:
        self._own = {metric.name: metric for metric in schema.metrics}
        self._indices: dict[str, int] = {}
        self._end = geometry.table_offset
        self._limit = self._end + KEY_TABLE_SIZE if geometry.most_parts else 0

    def add(self, metric: Metric, file: mmap) -> int | None:
        """Write a key's row unless it is there, and return its index; None where there is no room for one more.

        Raises:
            RingError: It can't be a late key, or the schema has another metric of that name.
        """
        if metric.name in self._indices:
            return self._indices[metric.name]
        row, begin = dump_key(metric), self._end + KEY_ROW.size
        if not _is_same(metric, self._own.get(metric.name)):
            raise RingError(f"key {metric.name!r:.80} can't be added to a ring whose schema has another such metric")
        if len(self._indices) >= MOST_LATE_KEYS or begin + len(row) > self._limit:
            return None
        file[begin : begin + len(row)] = row
        KEY_ROW.pack_into(file, self._end, len(row), crc32(row))  # what has not all of it yet has another check value
        self._end = begin + len(row)
        return self._indices.setdefault(metric.name, len(self._indices))


class KeyTable:
    """The reader's end of the key table; the layouts grow with it.

    Args:
        schema: The ring's.
        geometry: The ring's.
        path: Its name, for messages.

    Raises:
        RingError: The schema's metrics don't go together.
    """

    def __init__(self, schema: Schema, geometry: Geometry, path: str) -> None:
        self._schema, self._path = schema, path
        self._own = {metric.name: metric for metric in schema.metrics}
        self._next = geometry.table_offset
        self._limit = self._next + KEY_TABLE_SIZE
        self.keys: tuple[Metric, ...] = ()
        """The late keys; one of the schema's is among them where a value of it was logged beside the steps."""
        self._new: list[int] = []
        """Indices of those that the schema lacks."""
        self.base = self.all = self._made(schema.layout)
        """The layouts of the schema, and of the schema and the late keys: these come after its sums."""
        self.late = Layout(())
        """The layout of the late keys alone."""

    def read(self, file: mmap) -> None:
        """Read the rows that were added; one that is not whole yet will be read by a later call.

        Raises:
            RingError: A row means nothing.
        """
        begin, keys = self._next, list(self.keys)
        while len(keys) < MOST_LATE_KEYS and begin + KEY_ROW.size < self._limit:
            size, check = KEY_ROW.unpack_from(file, begin)
            end = begin + KEY_ROW.size + size
            if not size or end > self._limit or crc32(row := file[begin + KEY_ROW.size : end]) != check:
                break
            keys.append(load_key(row, self._path))
            if not _is_same(keys[-1], self._own.get(keys[-1].name)):
                raise RingError(f"{self._path} is damaged: a key is not as its schema has it; move it away")
            begin = end
        if begin != self._next:
            self._new = [index for index, key in enumerate(keys) if key.name not in self._own]
            self.all = self._layout((*self._schema.metrics, *(keys[index] for index in self._new)))
            self.late = self._layout(keys)
            self._next, self.keys = begin, tuple(keys)

    def _layout(self, metrics: Sequence[Metric]) -> Layout:
        return self._made(lambda: Layout(metrics, self._schema.modalities))

    def _made(self, make: Callable[[], Layout]) -> Layout:
        try:
            return make()
        except (ConfigurationError, IndexError) as error:
            raise RingError(
                f"{self._path} is damaged: its metrics don't go together ({error}); move it away"
            ) from error

    def logged(self, late: Sequence[tuple[float, float]]) -> list[float]:
        """Return the values of a logged record in the order of `late`.

        Args:
            late: Total and weight of each late key.
        """
        return [number for key, pair in zip(self.keys, late, strict=True) for number in _flat(key, pair)]

    def joined(self, values: Sequence[float], late: Sequence[tuple[float, float]]) -> list[float]:
        """Return a record's values in the order of `all`.

        Args:
            values: float64 [base.sums + 2 * base.peaks].
            late: Total and weight of each late key.
        """
        joined = list(values[: self.base.sums])
        for index in self._new:
            joined += _flat(self.keys[index], late[index])
        return joined + list(values[self.base.sums :])
