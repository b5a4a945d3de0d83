"""Warn of each cause once: a training loop meets the same one at every step."""

from __future__ import annotations

import logging


class OnceLogger:
    """Warnings of a session, each cause once.

    Args:
        logger: Where they go.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._causes: set[str] = set()

    def warn(self, cause: str, message: str, *arguments: object) -> None:
        """Log a warning unless one of the same cause was logged before."""
        if cause not in self._causes:
            self._causes.add(cause)
            self._logger.warning(message, *arguments)
