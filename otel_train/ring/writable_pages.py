"""Keep a ring on a disk ready to be written, so that the training thread does not wait for the file system.

The kernel protects a page of a mapped file when it writes it to the disk, and the next write into that page asks the
file system for leave. On ext4 that waits for a commit of the journal that is under way: half a second was seen where
others write much. A thread of its own asks in advance, for the header and for the pages that come next. Files in memory
have none of this.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_train.ring.writer import RingWriter

INTERVAL = 0.02
"""Seconds between two looks at where the rank is."""
AHEAD = 16
"""Pages that are asked for at once."""
_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE of madvise(2), Linux 5.14: each page is made writable as by a write, and stays as it is."""
_madvise = ctypes.CDLL(None, use_errno=True).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def make_writable(mapping: mmap.mmap, begin: int, end: int) -> bool:
    """Make the pages of a mapping writable that hold the bytes from `begin` to `end`; other threads run meanwhile.

    Returns:
        Whether that was done: not by an older kernel, nor where the mapping is closed or the disk full.
    """
    page = mmap.PAGESIZE
    begin -= begin % page
    try:
        # As long as this lives the mapping is not unmapped, whoever closes it.
        held = ctypes.c_char.from_buffer(mapping)
    except ValueError:
        return False
    length = min(end, len(mapping)) - begin
    return length <= 0 or _madvise(ctypes.addressof(held) + begin, length, _POPULATE_WRITE) == 0


def keep_writable(ring: RingWriter) -> threading.Thread:
    """Start the thread that keeps a ring's next pages writable, until the ring is released or gone.

    Returns:
        The thread.
    """
    thread = threading.Thread(target=_keep, args=(weakref.ref(ring),), name="otel_train ring", daemon=True)
    with contextlib.suppress(RuntimeError):  # no thread is to be had: steps wait for the file system now and then
        thread.start()
    return thread


def _keep(reference: weakref.ref[RingWriter]) -> None:
    while _touch(reference()):
        time.sleep(INTERVAL)


def _touch(ring: RingWriter | None) -> bool:
    return ring is not None and ring.touch_ahead()
