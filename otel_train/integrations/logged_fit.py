"""A fit whose steps end by a logger's calls, `log(values, step)`, as trackers have them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch.distributed as dist

from otel_train.integrations.fit_session import FitSession
from otel_train.log_once import OnceLogger
from otel_train.step import Telemetry
from otel_train.step.step_number import step_number


class LoggedFit:
    """A session that begins with its first value.

    A larger step than before ends with the call. The same one with the same keys, as a micro-batch has, counts in its
    means; other keys, and earlier steps, are logged beside it, as an evaluation. As long as no call has a step each
    ends the next one, as in wandb. What comes after the end of the process group of several ranks, without
    which none can begin a session, is one warning.

    Examples:
        >>> from otel_train.integrations.fit_session import FitSession
        >>> from otel_train.integrations.logged_fit import LoggedFit
        >>> fit = LoggedFit(FitSession(run_id="pilot"))
        >>> for step in (10, 20):
        ...     fit.log({"train/loss": 8.0 - step / 10}, step)
        >>> fit.log({"eval/loss": 6.5}, 20)
        >>> fit.state_dict()
        {'run_id': 'pilot', 'step': 20}
        >>> fit.end()

    Args:
        session: Begun and ended by this.
    """

    def __init__(self, session: FitSession) -> None:
        self._session = session
        self._last: int | None = None
        """Step that has ended last in the session under way."""
        self._keys: set[str] = set()
        """Keys that it came with."""
        self._numbered = False
        """Whether a call had a step."""
        self._had_peers = False
        """Whether the last session ended in a job of several ranks."""
        self._warnings = OnceLogger(logging.getLogger(__name__))

    @property
    def telemetry(self) -> Telemetry | None:
        """Session under way; None before the first value and after the end."""
        return self._session.telemetry

    def log(self, values: Mapping[str, Any], step: Any = None) -> None:
        """Record the values of a call.

        Args:
            values: Scalars as `Telemetry.step` takes them.
            step: The step that they belong to.
        """
        if self._comes_too_late("log()"):
            return
        number = self._number(step)
        session = self._open((number or 1) - 1)
        self._numbered |= number is not None
        if number is None and not self._numbered:
            number = session.last_step + 1
        again = number == self._last and values.keys() <= self._keys
        if number is not None and (self._last is None or number > self._last or again):
            if not again:
                self._last, self._keys = number, set(values)
            session.step(number, values)
        else:
            session.log(values, number)

    def add(self, values: Mapping[str, Any], *, weight: float = 1.0) -> None:
        """Add the values of a micro-batch to the step that the next call of `log` ends."""
        if not self._comes_too_late("add()"):
            self._open(0).add(values, weight=weight)

    def end(self) -> None:
        """End the session; a later value begins another one, in the same run if its step follows."""
        self._had_peers = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self._session.end()
        self._last, self._numbered = None, False

    def state_dict(self, *, gathered: bool = False) -> dict[str, Any]:
        """Return the session's state and its newest step; see `FitSession.state_dict`."""
        return self._session.state_dict(gathered=gathered)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the run of a checkpoint with the session that begins next; one that is open ends.

        A script that goes back to a checkpoint while it trains makes its steps again, in an attempt of their own.
        """
        self.end()
        self._session.load_state_dict(state)
        self._session.load_meter()  # the first batch is counted before the first value comes

    def _open(self, before: int) -> FitSession:
        if self._session.telemetry is None:
            self._session.begin(before)
        return self._session

    def _comes_too_late(self, call: str) -> bool:
        """Tell whether a session would begin without the job's process group, which would raise in the script."""
        if not (self._had_peers and self._session.makes_sessions) or dist.is_initialized():
            return False
        self._warnings.warn(
            "ended",
            "telemetry: %s came after accelerator.end_training(), or what else ended the process group, and nothing of "
            "it is recorded; log it before that",
            call,
        )
        return True

    def _number(self, step: Any) -> int | None:
        try:
            return None if step is None else step_number(step)
        except ValueError as error:
            self._warnings.warn("step", "telemetry: values are recorded as if they had no step: %s", error)
            return None
