"""The optimizer's step that each of a rank's picks belongs to, which a schedule of weights goes by."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


class PickSteps:
    """Steps of picks: every `rows_per_step` of them make one, from where the job began or went on.

    Args:
        rows_per_step: Rows that this rank consumes in a step.
    """

    def __init__(self, rows_per_step: int) -> None:
        self.rows_per_step = rows_per_step
        """Rows that this rank consumes in a step."""
        self._start = 1, 0
        """A step, and the index of its first pick."""
        self._ended: tuple[int, int] | None = None
        """The step that ended last, and the index of the first pick after it."""
        self._warned = False

    def restart(self, step: int, index: int, picks_in_step: int) -> None:
        """Go on at pick `index`, in a step that has some picks already.

        A step that was saved within keeps its picks, but ends with the next one where a step has become shorter.
        """
        self._start = step, index - min(picks_in_step, self.rows_per_step - 1)
        self._ended = None

    def step_of(self, index: int) -> int:
        """Return the optimizer's step that a pick belongs to."""
        step, first = self._start
        return step + (index - first) // self.rows_per_step

    def is_first(self, index: int) -> bool:
        """Tell whether a pick is the first of its step."""
        return (index - self._start[1]) % self.rows_per_step == 0

    def end(self, step: int, index: int, *, scheduled: bool) -> None:
        """Note that a step ended before pick `index`; warn once where a schedule is at another step."""
        self._ended = step, index
        expected = self.step_of(index) - 1
        if scheduled and abs(expected - step) > 1 and not self._warned:
            self._warned = True
            logger.warning(
                "the schedule of weights is at step %d, training at step %d: set rows_per_step (%d) to the rows that "
                "this rank consumes in an optimizer step",
                expected,
                step,
                self.rows_per_step,
            )

    def present(self, index: int) -> tuple[int, int]:
        """Return the step that is being made before pick `index`, and the number of picks that it has already."""
        step, first = self._start
        if self._ended is not None:
            step, first = self._ended[0] + 1, self._ended[1]
        return step + (index - first) // self.rows_per_step, (index - first) % self.rows_per_step
