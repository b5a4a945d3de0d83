"""Replacements for hooks that transformers lacks: which Trainer calls a callback, and what its methods return."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Trainer

from otel_train.exceptions import ConfigurationError
from otel_train.integrations.fit_session import FitSession


@dataclass(frozen=True, slots=True)
class SeenMethod:
    """A method of a Trainer whose results somebody sees."""

    method: Callable[..., Any]
    owner: object
    """Its maker, who gives a Trainer no second one."""
    see: Callable[[Any, dict[str, Any]], None]
    """Takes each result, and the arguments by name."""
    fail: Callable[[], None]
    """Called where the method raises, while its exception is being handled."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method."""
        try:
            result = self.method(*args, **kwargs)
        except BaseException:
            self.fail()
            raise
        self.see(result, {**dict(zip(("model", "inputs", "num_items_in_batch"), args, strict=False)), **kwargs})
        return result


def time_batches(trainer: Any, fit: FitSession) -> None:
    """Have the sessions of a fit measure how long a Trainer waits for its batches; once for each Trainer."""
    take = getattr(trainer, "get_batch_samples", None)
    if take is None or getattr(take, "fit", None) is fit:
        return

    def get_batch_samples(*args: Any, **kwargs: Any) -> Any:
        telemetry = fit.telemetry
        if telemetry is not None and args:
            args = (telemetry.timed(args[0]), *args[1:])
        return take(*args, **kwargs)

    setattr(get_batch_samples, "fit", fit)  # noqa: B010  # a function has no such attribute for mypy
    trainer.get_batch_samples = get_batch_samples


def calling_trainer() -> tuple[Any, Path | None]:
    """Return the Trainer whose hook is running, and the checkpoint that its train() resumes from.

    Raises:
        ConfigurationError: Something else called the hook.
    """
    frame = inspect.currentframe()
    while frame is not None:
        trainer, checkpoint = frame.f_locals.get("self"), frame.f_locals.get("resume_from_checkpoint")
        if isinstance(trainer, Trainer):
            return trainer, Path(checkpoint) if isinstance(checkpoint, str | Path) else None
        frame = frame.f_back
    raise ConfigurationError(
        "a callback's hooks must be called by a transformers.Trainer or a subclass of it, got another caller; use "
        "otel_train.init() in a loop of your own"
    )
