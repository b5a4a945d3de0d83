"""Warn of each cause once: a training loop, and a service, meet the same one over and over."""

from __future__ import annotations

import logging
import math
import time

MOST_CAUSES = 100
"""Causes that are remembered at most."""


class OnceLogger:
    """Warnings, each cause once.

    Args:
        logger: Their destination.
        again_after: Seconds for which a cause must have been quiet to be logged once more; by default it never is. A
            logger that forgets causes goes on when there are more than `MOST_CAUSES`; any other says so and stops.
    """

    def __init__(self, logger: logging.Logger, *, again_after: float = math.inf) -> None:
        self._logger = logger
        self._again_after = again_after
        self._causes: dict[str, float] = {}
        """Time at which each came last, on a clock that is never set; in the order in which they were remembered."""

    def warn(self, cause: str, message: str, *arguments: object) -> bool:
        """Log a warning unless one of the same cause was logged before, and tell whether it was logged."""
        is_news = self._is_news(cause)
        if is_news:
            self._logger.warning(message, *arguments)
        return is_news

    def _is_news(self, cause: str) -> bool:
        last = self._causes.get(cause)
        if last is None and len(self._causes) >= MOST_CAUSES:
            if math.isinf(self._again_after):
                self._stop()
                return False
            del self._causes[next(iter(self._causes))]
        self._causes[cause] = now = time.monotonic()
        return last is None or now - last >= self._again_after

    def _stop(self) -> None:
        """Say once that there are too many causes: a key that has the step in it would be a new one at each step."""
        if len(self._causes) == MOST_CAUSES:
            self._causes[""] = 0.0
            self._logger.warning("telemetry: there are more warnings than %d; no more are logged", MOST_CAUSES)


class OutageLogger:
    """A warning when something begins to fail, and a line when it works again.

    Args:
        logger: Their destination.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._failing = False

    def failed(self, message: str, *arguments: object) -> None:
        """Log a warning unless the try before failed too."""
        if not self._failing:
            self._failing = True
            self._logger.warning(message, *arguments)

    def worked(self, message: str = "") -> None:
        """Log a message, where there is one, if the try before failed."""
        if self._failing:
            self._failing = False
            if message:
                self._logger.info(message)
