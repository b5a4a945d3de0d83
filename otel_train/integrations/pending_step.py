"""A step that a trainer's hooks make: the session is told its values when it ends, and none if it never does."""

from __future__ import annotations

from typing import Any

from otel_train.integrations.fit_session import FitSession

LOSS = "train/loss"


class PendingStep:
    """The step that is being made, of one micro-batch or several.

    Args:
        fit: The session that it is told to.
    """

    def __init__(self, fit: FitSession) -> None:
        self.fit = fit
        self.ends = False
        """Whether the optimizer has stepped: the step ends as soon as all that it logs has come."""
        self._has_ended = False
        """Whether it was told of already, so that what comes now goes after it."""
        self._values: list[tuple[dict[str, Any], float]] = []
        self._losses: list[tuple[dict[str, Any], float]] = []

    def reset(self) -> None:
        """Drop what was taken."""
        self.ends = self._has_ended = False
        self._values, self._losses = [], []

    def take(self, name: str, value: Any, weight: float) -> None:
        """Take a value of a micro-batch that nobody changes later, with what it counts in the step's mean."""
        if self._has_ended:
            self.fit.log({name: value}, self.fit.last_step, weight=weight)
        else:
            self._values.append(({name: value}, weight))

    def take_loss(self, loss: Any, weight: float) -> None:
        """Take the loss of a micro-batch, which is `train/loss` unless the user's own values have that name."""
        self._losses.append(({LOSS: loss}, weight))

    def begin_batch(self) -> None:
        """Begin a micro-batch: of the same step, or of the next one."""
        self.end()
        self._has_ended = False

    def end(self) -> None:
        """Tell the session of the step, if the optimizer has stepped."""
        if not self.ends:
            return
        is_given = any(LOSS in values for values, _ in self._values)
        taken = self._values if is_given else self._values + self._losses
        self.reset()
        self._has_ended = True
        for values, weight in taken:
            self.fit.add(values, weight=weight)
        self.fit.step(self.fit.last_step + 1)
