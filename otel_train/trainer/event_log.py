"""Write a rank's events as JSON lines, from which an outsider can compute every value anew."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self


class EventLog:
    """A file with one event a line, in the order in which things happened; whole up to the last drain.

    Args:
        directory: Folder of the rank's file.
        rank: The rank.
    """

    def __init__(self, directory: Path, rank: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = (directory / f"rank{rank}.jsonl").open("w", encoding="utf-8")

    def __call__(self, event: dict[str, object]) -> None:
        """Write one event."""
        self._file.write(json.dumps(event) + "\n")
        if event["event"] == "drain":
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
