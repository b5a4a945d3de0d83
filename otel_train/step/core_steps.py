"""Hand the steps of a session to the core, where it is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from otel_train.native.records import Steps
from otel_train.step.clock import StepClock

if TYPE_CHECKING:
    from otel_train.ring import RingWriter
    from otel_train.step.recorder import Recorder


class Recorded(Protocol):
    """Recording of a session's steps: `Recording`."""

    @property
    def recorder(self) -> Recorder:
        """This rank's measurements."""

    @property
    def ring(self) -> RingWriter | None:
        """This rank's ring; there is one."""


class CoreSteps(Steps):
    """State of a session's steps, and who makes them: Python, until they are handed over, and where the core can't."""

    def __init__(self) -> None:
        super().__init__()
        self.given = self.last_step = self.newest_step = -1

    def log_stride(self) -> int:
        """Return how far log steps are apart, absences aside, as `log_every` tells; 0 where it does not."""
        return self.every if self.strides and self.every > 1 and self.every % self.stride == 0 else 0

    def hand_over(self, recording: Recorded, clock: StepClock, step: Callable[..., Any]) -> Callable[..., Any]:
        """Have the core make the steps from now on.

        Args:
            recording: The session's.
            clock: The session's.
            step: What makes a step that is not like most: `Telemetry.step`.

        Returns:
            What makes a step, for the user to call in its place.
        """
        recorder = recording.recorder
        self.bind(recording, recorder, recorder.interval, clock, recording.ring, recorder.picks, recorder.row, step)
        self.plain = True
        return self.step
