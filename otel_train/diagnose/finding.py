"""What an examination of a run says: one finding for each thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is, from good to bad."""

    OK = "ok"
    UNKNOWN = "unknown"
    """The source does not tell."""
    WARNING = "warning"
    """Training goes on, but not as it was meant to."""
    CRITICAL = "critical"
    """Training hangs, or trains on nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What was looked at: a headline key, or a word such as `ranks` or `mix drift`."""
    severity: Severity
    summary: str
    """One line: what is the case, with its figure and its range."""
    since_step: int | None = None
    """The first step of the newest stretch in which it is so."""
    rank: int | None = None
    """The rank that is worst, where one can be named."""
    chance: float | None = None
    """How likely what was seen would be by chance, where that can be said."""
    evidence: tuple[str, ...] = ()
    """What the finding rests on, a line each."""
    cause: str = ""
    """The likely cause."""
    remedy: str = ""
    """What to do, with figures where they are known."""
