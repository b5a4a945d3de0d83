"""One result of an examination of a run: how bad, since when, on which rank, why, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    UNKNOWN = "unknown"
    """The source does not tell."""
    NOTE = "note"
    """Nothing need be wrong: something about the run that one should have heard of."""
    WARNING = "warning"
    """Training goes on, but not as it was meant to."""
    CRITICAL = "critical"
    """Training hangs, or trains on nothing."""


WORST_FIRST = (Severity.CRITICAL, Severity.WARNING, Severity.NOTE, Severity.UNKNOWN, Severity.OK)
"""The order of findings."""
INFORMS = (Severity.NOTE, Severity.UNKNOWN)
"""Severities of findings that say neither that something is wrong nor that it is well."""
WRONG = (Severity.CRITICAL, Severity.WARNING)
"""Severities of findings that somebody must look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Result of one check."""

    check: str
    """Subject of the check: a headline key, or a word such as `ranks` or `mix drift`."""
    severity: Severity
    summary: str
    """The state in one line, with its value and its range."""
    since_step: int | None = None
    """The first step of the newest stretch in which it is so."""
    rank: int | None = None
    """The rank that is worst, where one can be named."""
    chance: float | None = None
    """Probability of such data if nothing were wrong, where that can be told."""
    evidence: tuple[str, ...] = ()
    """Facts that the finding rests on, a line each."""
    cause: str = ""
    """The likely cause."""
    remedy: str = ""
    """Advice, with numbers where the run gives them."""
