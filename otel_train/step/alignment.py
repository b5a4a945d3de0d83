"""Keep a rank's reductions in line with its peers': the n-th of each rank is to be of one step. Pure.

A collective knows no steps: the n-th reduction that a rank launches meets the n-th of each other rank. A rank that was
away for some log steps takes part in these afterwards, without values; what its peers have launched for them completes
then. Where that does not bring them together (it was away for longer than its peers keep reductions waiting), a rank
that sees others at a later step leaves out as many of its own.
"""

from __future__ import annotations


class Alignment:
    """Choice of the steps that a rank makes up for, and of those that it leaves out.

    Args:
        longest: Steps that are made up for at once at most: as many as peers keep waiting.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._last: int | None = None
        """Last step that the rank came to, reduced or left out."""
        self._stride: int | None = None
        """Distance from each of these steps to the next, as it was last."""
        self._next = -1
        """Step that follows at this stride; negative where that has to be looked at."""
        self._left_out_until = -1
        self._corrected = 0
        """Number of reductions when steps were left out last."""
        self.count = 0
        """Reductions that were launched, or wait for that."""

    def follows(self, step: int) -> bool:
        """Tell whether this step, which the rank comes to, follows the last one as nearly always."""
        if step != self._next or self._stride is None:
            return False
        self._last, self._next = step, step + self._stride
        return True

    def missed(self, step: int, usual: int = 0) -> range:
        """Return the steps between the last one and this one which the rank did not come to, oldest first.

        Args:
            step: The step that the rank comes to.
            usual: How far such steps are apart, absences aside; 0 where nobody knows. Then it is seen by the two
                before, since some call a session at each tenth step only: a rank must not be away between them.
        """
        last, stride = self._last, usual or self._stride
        self._last = step
        if last is None or step <= last:
            return range(0)
        self._stride = usual or step - last
        self._next = step + self._stride
        if stride is None:
            return range(0)
        left_out = max(0, self._left_out_until - last) // stride
        return range(last + stride * (1 + left_out), step - stride + 1, stride)[: self._longest]

    def leaves_out(self, step: int) -> bool:
        """Tell whether this step, which the rank has come to, is left out so that a later one meets the peers'."""
        if step > self._left_out_until:
            return False
        self._last, self._next = step, -1
        return True

    def correct(self, number: int, step: int, newest: int) -> None:
        """Take note of a reduction in which others were at a later step.

        Args:
            number: How many reductions this rank has launched before that one.
            step: The step that it launched it for.
            newest: The newest step of another rank in it.
        """
        if newest > step and number >= self._corrected and self._last is not None:
            self._left_out_until = self._last + newest - step
            self._next = -1
            self._corrected = self.count
