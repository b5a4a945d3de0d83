"""Name the state that a run's job has ended in, by its exit code."""

from __future__ import annotations

import signal

DIED = 137
"""Exit code of a job whose process, or machine, went without a word: that of SIGKILL."""
_ASKED = frozenset(128 + number for number in (signal.SIGTERM, signal.SIGHUP))


TAKES_ALONG_NS = 10 * 10**9
"""Time within which a rank's death has ended others by an exception; launchers kill what is left after 30 s."""


def outweighs(code: int, other: int | None, later_ns: int) -> bool:
    """Tell whether one rank's exit code says more of why the job ended than another's.

    A rank that fails takes the others along: its launcher sends them SIGTERM, and SIGKILL later. A rank that dies has
    them fail in their collectives at once. Else the first one counts.

    Args:
        code: A rank's.
        other: Another one's, None where there is none.
        later_ns: Time from the other end to this one.

    Examples:
        >>> outweighs(1, 143, later_ns=-5), outweighs(137, 1, later_ns=5), outweighs(137, 1, later_ns=30 * 10**9)
        (True, True, False)
    """
    if other is None:
        return True
    weights = _weight(code), _weight(other)
    if weights[0] != weights[1]:
        return weights[0] > weights[1]
    if DIED in (code, other) and code != other:
        return (code == DIED) == (abs(later_ns) <= TAKES_ALONG_NS or (later_ns < 0) == (code == DIED))
    return later_ns < 0


def _weight(code: int) -> int:
    return 0 if code in _ASKED else 2 if code else 1  # the first rank's good end is the job's


def is_preempted(code: int) -> bool:
    """Tell whether a job was asked to end, as a scheduler asks: all that failed got SIGTERM, or SIGHUP."""
    return code in _ASKED


def state_of(code: int) -> str:
    """Return the state that an exit code stands for, in wandb's words.

    Examples:
        >>> [state_of(code) for code in (0, 3, 137, 143)]
        ['finished', 'failed', 'crashed', 'preempted']
    """
    if is_preempted(code):
        return "preempted"
    return {0: "finished", DIED: "crashed"}.get(code, "failed")
