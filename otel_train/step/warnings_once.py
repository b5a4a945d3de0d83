"""Warn of each cause once: a training loop meets the same one at every step."""

from __future__ import annotations

import logging

MOST_CAUSES = 100
"""Warnings that a session logs at most."""


class OnceLogger:
    """Warnings of a session, each cause once.

    Args:
        logger: Where they go.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._causes: set[str] = set()

    def dropped(self, name: str, reason: str) -> None:
        """Warn of a value that is dropped, once for its name."""
        self.warn(f"value {name!r}", "telemetry: %r is dropped: it %s", name, reason)

    def warn(self, cause: str, message: str, *arguments: object) -> None:
        """Log a warning unless one of the same cause was logged before."""
        if cause in self._causes or len(self._causes) > MOST_CAUSES:
            return
        self._causes.add(cause)
        if len(self._causes) > MOST_CAUSES:  # a key that has the step in it would be a new one at each step
            self._logger.warning("telemetry: there are more warnings than %d; no more are logged", MOST_CAUSES)
            return
        self._logger.warning(message, *arguments)
