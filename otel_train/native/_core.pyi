from array import array
from collections.abc import Sequence
from mmap import mmap
from typing import Self

VERSION: int

class Packing:
    def __new__(cls, sums: int, peaks: int, world_size: int, size: int, /) -> Self: ...
    def pack(self, vector: memoryview[float], step: int, values: Sequence[float], rank: int, own: bool, /) -> bool: ...
    def everybody(self, vector: memoryview[float], step: int, /) -> bool | None: ...
    def unpack(self, vector: memoryview[float], step: int, out: array[float], /) -> bool | None: ...
    def others(self, vector: memoryview[float], step: int, /) -> list[tuple[int, float]] | None: ...

def whole_records(
    mapping: mmap, first: int, size: int, records: int, begin: int, end: int, heads: array[int], /
) -> int: ...
def gather(
    mapping: mmap,
    first: int,
    size: int,
    records: int,
    sequences: array[int],
    begin: int,
    end: int,
    offset: int,
    out: array[float],
    /,
) -> None: ...
def divergences(rows: int, width: int, counts: array[float], targets: array[float], out: array[float], /) -> None: ...
def interval_picks(
    rows: int,
    width: int,
    horizon: float,
    counts: array[float],
    targets: array[float],
    picks: array[float],
    kept: array[int],
    new: array[float],
    shares: array[float],
    /,
) -> int: ...
def late_slots(vector: memoryview[float], begin: int, keys: int, /) -> list[tuple[int, float, float]]: ...
def watch_signal(number: int, pipe: int, bound_ns: int, /) -> bool: ...
def leave_signal(number: int, /) -> bool: ...
def signal_came() -> bool: ...
def forget_signal() -> None: ...
