"""Streams of numbers, and their positions in saved states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Numbers:
    """A stream whose row n is n and holds n + 1 tokens."""

    id: str
    modality: str
    length: int = 9

    def __len__(self) -> int:
        return self.length

    def read(self, position: int) -> tuple[dict[str, Any], int]:
        """Return a row, with a number of tokens that follows from the position."""
        return {"value": position}, position + 1


def held(state: dict[str, Any]) -> list[tuple[str, int]]:
    """Return the streams of one rank and the rows at which they go on."""
    plan = state["plan"]
    entries = [entry for entry in plan["slots"] if entry] + [
        entry for queue in plan["queues"].values() for entry in queue
    ]
    return [(str(stream), int(position)) for stream, position in entries]
