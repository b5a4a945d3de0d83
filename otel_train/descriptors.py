"""Open files in a process of the user's: never as descriptor 0, 1 or 2, and readable by their owner only."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def standard_descriptors() -> Iterator[None]:
    """Fill the descriptors 0 to 2 during the block, where the process was started without them.

    A file that got one of them would receive everything that is printed.
    """
    opened = []
    try:
        with contextlib.suppress(OSError):
            while (descriptor := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
                opened.append(descriptor)
            os.close(descriptor)
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)


def allow_descriptors(most: int) -> None:
    """Raise the number of files that this process may have open, as far as the system lets it.

    Args:
        most: As many as are of use.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def open_private(path: Path, flags: int) -> int:
    """Open a file, or make it with the mode 0600 whatever the process's umask is; a link is refused.

    Raises:
        OSError: It can't be opened.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if flags & os.O_CREAT:
        try:
            os.fchmod(descriptor, 0o600)
        except OSError:
            os.close(descriptor)
            raise
    return descriptor
