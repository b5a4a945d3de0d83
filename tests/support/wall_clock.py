"""A wall clock that a test sets while processes read it; their monotonic clock goes on.

libfaketime is not used: with the monotonic clock left alone its release 0.9.10 makes Python's `time.sleep` fail
(clock_nanosleep until a time of that clock), and without that a wait on a lock with a timeout does not end.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("wall_clock.c")
_SECONDS = struct.Struct("@q")


class Clock:
    """The clock of the processes that run in its environment.

    Args:
        folder: Where its library and its file are made.

    Raises:
        FileNotFoundError: There is no C compiler; the message says what to do.
    """

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            raise FileNotFoundError("the fault tests compile a clock: install a C compiler (Debian: gcc, libc6-dev)")
        library, file = folder / "wall_clock.so", folder / "wall_clock"
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", library, SOURCE], check=True)
        file.write_bytes(_SECONDS.pack(0))
        with file.open("r+b") as opened:
            self._mapped = mmap.mmap(opened.fileno(), _SECONDS.size)
        self.environment = {"LD_PRELOAD": str(library), "FAULTS_CLOCK": str(file)}

    def set(self, seconds: int) -> None:
        """Let the clock be wrong by so many seconds."""
        _SECONDS.pack_into(self._mapped, 0, seconds)
