"""Decide which calls end a step, and keep the values of those that end none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from otel_train.log_once import OnceLogger
from otel_train.step.core_steps import CoreSteps
from otel_train.step.early_scalars import MOST_EARLY, EarlyScalars
from otel_train.step.per_row import RowBinding
from otel_train.step.source_protocols import EndStep
from otel_train.step.step_number import checked_weight, step_number

if TYPE_CHECKING:
    from otel_train.step.recording import Recording


class Admission:
    """Decides on calls of `step` whose argument is not an int, or not larger than before.

    Args:
        early: Takes the scalars of calls before the first step.
        rows: Binds values by row to their sources.
        warnings: The session's.
    """

    def __init__(self, early: EarlyScalars, rows: RowBinding, warnings: OnceLogger) -> None:
        self.refused = 0
        """Calls that ended no step: their argument is not a step number, or is smaller than the last one."""
        self._early = early
        self._rows = rows
        self._warnings = warnings

    def admit(
        self, step: Any, scalars: Mapping[str, Any] | None, last_step: int, running: Recording | None
    ) -> int | None:
        """Return a step's number; None where the call ends no step, and keep its scalars then.

        Args:
            step: What the user gave.
            scalars: The call's.
            last_step: The last step that ended.
            running: What exists from the first step on.
        """
        try:
            number = self._number(step, scalars or {}, last_step)
            if number is not None and number > last_step:
                return number
            if running is None:
                self._early.add(scalars or {}, 1.0)
                return None
            if number == last_step and not running.repeat():
                self._warn_of_late(number, scalars or {})
                running.log_late(number, scalars or {})
                return None
            if number is None:
                running.release()  # what comes now belongs to the next step
            running.add(scalars or {})
        except Exception as error:  # noqa: BLE001  # nothing of ours raises into the training loop
            self._warnings.warn("admit", "telemetry: a call of step() is left out: %r", error)
        return None

    def add(self, scalars: Mapping[str, Any], weight: Any, by: Any, running: Recording | None) -> None:
        """Add scalars to the step that is being made; see `Telemetry.add`."""
        try:
            weight = checked_weight(weight)
            if self._rows.needed or by is not None:
                scalars = self._rows.bind(scalars, by)
            if running is not None:
                running.repeats = False
                running.release()
                running.add(scalars, weight)
            elif not self._early.add(scalars, weight):
                self._warn_of_early("add")
        except Exception as error:  # noqa: BLE001  # as above
            self._warn_of_dropped("add", scalars, error)

    def log(
        self, scalars: Mapping[str, Any], step: Any, weight: Any, last_step: int, running: Recording | None
    ) -> None:
        """Record scalars under a step, the last one that ended where it is None; see `Telemetry.log`."""
        try:
            weight = checked_weight(weight)
            number = max(0, last_step) if step is None else step_number(step)
            if running is not None:
                running.log(number, scalars, weight)
            elif not self._early.add(scalars, weight, number):
                self._warn_of_early("log")
        except Exception as error:  # noqa: BLE001  # as above
            self._warn_of_dropped("log", scalars, error)

    def pass_on(self, step: Any, steps: CoreSteps, sources: Sequence[EndStep]) -> None:
        """Tell the sources that training depends on of a step, in a session that is off."""
        try:
            number = step if type(step) is int else step_number(step)
            if number > steps.given:
                steps.given = number
                for end_step in sources:
                    end_step(number)
        except Exception as error:  # noqa: BLE001  # as above
            self._warnings.warn("clock", "telemetry: the sources are not told of a step: %r", error)

    def _warn_of_dropped(self, call: str, scalars: Mapping[str, Any], error: Exception) -> None:
        self._warnings.warn(call, "telemetry: %s() has dropped its values (%s): %r", call, _keys(scalars), error)

    def _warn_of_early(self, call: str) -> None:
        self._warnings.warn(
            "early", "telemetry: %s() drops values: the first step is not made after %d calls", call, MOST_EARLY
        )

    def _warn_of_late(self, step: int, scalars: Mapping[str, Any]) -> None:
        self._warnings.warn(
            "again",
            "telemetry: step %d was given again after it had gone out, with %s, which are recorded beside it (maxima "
            "and minima in the next step); telemetry.add() adds values before their step ends",
            step,
            _keys(scalars),
        )

    def _number(self, step: Any, scalars: Mapping[str, Any], last_step: int) -> int | None:
        """Return the number of a step that ends, or of the last one, which is given again; None for all others."""
        try:
            number = step_number(step)
        except ValueError as error:
            self.refused += 1
            self._warnings.warn(
                "number",
                "telemetry: step() is left out, its values go into the next step (%s): %s",
                _keys(scalars),
                error,
            )
            return None
        if number < last_step:
            self.refused += 1
            self._warnings.warn(
                "order",
                "telemetry: step %d came after step %d with %s, which go into the next step. Steps must not become "
                "smaller; go back to a checkpoint in a new session",
                number,
                last_step,
                _keys(scalars),
            )
            return None
        return number


def _keys(scalars: Mapping[str, Any]) -> str:
    try:
        return ", ".join(map(str, scalars)) or "no values"
    except Exception:  # noqa: BLE001  # what the user gave is no mapping, or a key has no text
        return type(scalars).__name__
