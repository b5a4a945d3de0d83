"""Keep the newest warnings of a bridge's log in its state, where `otel-train bridge --check` reads them."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import NamedTuple

TROUBLES_FILE = "troubles.json"
LASTING = {"lasting": True}
"""Attributes of a log record about what stays wrong until the bridge is started again."""
_LOGGER = logging.getLogger("otel_train.bridge")


class Trouble(NamedTuple):
    """A line of the log."""

    time: float
    """Seconds since 1970."""
    text: str
    lasting: bool


class Troubles(logging.Handler):
    """A handler of the bridge's log that keeps the newest warning, and the newest one about what lasts, in a file.

    Args:
        state: The bridge's state directory; an earlier bridge's file there is removed.
    """

    def __init__(self, state: Path) -> None:
        super().__init__(logging.WARNING)
        self._path = state / TROUBLES_FILE
        self._kept: dict[bool, Trouble] = {}
        self._path.unlink(missing_ok=True)

    def attach(self) -> None:
        """Keep what is logged from now on."""
        _LOGGER.addHandler(self)

    def close(self) -> None:
        """Keep no more; a second call does nothing."""
        _LOGGER.removeHandler(self)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        lasting = bool(getattr(record, "lasting", False))
        self._kept[lasting] = Trouble(record.created, record.getMessage(), lasting)
        fresh = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk, which is told otherwise
            fresh.write_text(json.dumps(list(self._kept.values())))
            fresh.replace(self._path)


def read_troubles(state: Path) -> list[Trouble]:
    """Return what a bridge's log has said last; nothing where it has not warned, or the file is not readable."""
    try:
        return [Trouble(*kept) for kept in json.loads((state / TROUBLES_FILE).read_text())]
    except (OSError, ValueError, TypeError):
        return []
