"""Find the record from which a part of a run begins, in a ring of any length, without reading those before it."""

from __future__ import annotations

from collections.abc import Callable

from otel_train.ring import Kind, RingReader, Stamp

_PROBED = 256
"""Records that a probe looks at for one of the rank's own."""


def first_record(reader: RingReader, begin: int, end: int, is_before: Callable[[Stamp], bool]) -> int:
    """Return a position before which no record of the steps belongs to a part of the run that goes on to its end.

    A rank's own records have rising steps and times, in the order in which they are written, and are bisected. The
    cluster's of a step come after the rank's own of it, and so after all that are before the part. The values that were
    logged beside the steps are in no order.

    Args:
        reader: The ring.
        begin: Position of the first record that counts.
        end: Position after the last one.
        is_before: Whether a record comes before the part.
    """
    low, high = begin, end
    while low < high:
        middle = (low + high) // 2
        stamps = ((at, reader.stamp(at)) for at in range(middle, min(high, middle + _PROBED)))
        own = next(((at, stamp) for at, stamp in stamps if stamp is not None and stamp.kind is not Kind.CLUSTER), None)
        if own is not None and is_before(own[1]):
            low = own[0] + 1
        else:  # where none was seen, the part may begin before
            high = middle
    return low
