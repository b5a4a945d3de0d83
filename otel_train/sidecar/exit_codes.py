"""Give the exit code of a rank's process as far as its ring tells how the session ended."""

from __future__ import annotations

import re
import signal

from otel_train.ring import End

DIED = 137
"""Code of a process that ended without a word, as one that got SIGKILL does: also out of memory, or by a crash."""
_EXIT = re.compile(r"SystemExit\((-?\d+)\)")


def exit_code(end: End, error: str) -> int:
    """Return a code as a shell has it: 128 + N for signal N.

    Args:
        end: How the session ended, of a process that has ended.
        error: Name of the exception or signal that ended it.

    Examples:
        >>> exit_code(End.PROCESS, "SystemExit(3)"), exit_code(End.SIGNAL, "SIGTERM"), exit_code(End.CLOSED, "")
        (3, 143, 0)
        >>> exit_code(End.CLOSED, "SystemExit(256)"), exit_code(End.CLOSED, "SystemExit(-1)"), exit_code(End.OPEN, "")
        (0, 255, 137)
    """
    if end is End.OPEN:
        return DIED
    if end is End.SIGNAL:
        return 128 + getattr(signal, error, signal.SIGTERM)
    if given := _EXIT.fullmatch(error):
        return int(given[1]) & 255  # as the process ends: SystemExit(256) is a good end
    if error == KeyboardInterrupt.__name__:
        return 128 + signal.SIGINT
    if error.endswith("SIGTERMException"):  # Lightning's, in place of the signal
        return 128 + signal.SIGTERM
    return int(bool(error))
