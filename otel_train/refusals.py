"""Why a receiver refuses points for good, as one of a few reasons: the values of the attribute `error.type`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum


class Refusal(StrEnum):
    """Reason of a refusal. Rings count by their order: new ones come last, and a ring has room for eight."""

    REJECTED = "rejected"
    """Named in a partial success without a reason that is one of the others; OpenTelemetry's own word for it."""
    INVALID = "invalid"
    """A status says that the data are at fault, and its text none of the others."""
    TOO_OLD = "too_old"
    """Older than what the receiver takes, or than the newest point of the series."""
    TOO_NEW = "too_new"
    """Too far ahead of the receiver's clock."""
    OUT_OF_BOUNDS = "out_of_bounds"
    """Beyond the times that the receiver takes, in words that do not say on which side."""
    DUPLICATE = "duplicate"
    """The receiver has another value of the series at that time."""
    TOO_LARGE = "too_large"
    """A single point is larger than what the receiver takes."""
    LIMIT = "limit"
    """More series, attributes, points or characters than the receiver allows."""


OTHER = "_OTHER"
"""Reason of points whose reason is unknown; OpenTelemetry's own word for it."""

# What Prometheus, Mimir, Cortex, Thanos, VictoriaMetrics, some vendors and our bridge say.
_TEXTS: tuple[tuple[str, Refusal], ...] = (
    (r"duplicate|already (exists|received|stored|ingested)|(different|conflicting) value", Refusal.DUPLICATE),
    (r"future|too (new|far ahead)|\bahead of\b|newer than (the )?(allowed|clock|current|now|server)", Refusal.TOO_NEW),
    (
        r"too[ -]old|stale|out[ -]of[ -]order|too far (back|behind)|in (the )?past\b|\bolder\b|retention|expired",
        Refusal.TOO_OLD,
    ),
    (r"out[ -]of[ -](bounds?|range)|outside (of )?(the )?(time|accept|allowed)", Refusal.OUT_OF_BOUNDS),
    (r"too large|larger than|message size", Refusal.TOO_LARGE),
    (r"too (many|long)|limit|(more|longer) than|exceed|max-series|cardinality|quota", Refusal.LIMIT),
)
_PATTERNS = [(re.compile(text, re.IGNORECASE), reason) for text, reason in _TEXTS]


def refusal_of(text: str, otherwise: Refusal) -> Refusal:
    """Return the reason that a receiver's text gives.

    Args:
        text: The receiver's words.
        otherwise: The reason of a text that gives none.

    Examples:
        >>> from otel_train.refusals import Refusal, refusal_of
        >>> str(refusal_of("duplicate sample for timestamp 1000", Refusal.INVALID))
        'duplicate'
        >>> str(refusal_of("no", Refusal.REJECTED))
        'rejected'
    """
    return next((reason for pattern, reason in _PATTERNS if pattern.search(text)), otherwise)


REMEDIES: dict[str, str] = {
    Refusal.TOO_OLD: "Give the receiver a window for times that are out of order (Prometheus: "
    "storage.tsdb.out_of_order_time_window), and set the host's clock if it is behind.",
    Refusal.TOO_NEW: "Set the host's clock: it is ahead of the receiver's.",
    Refusal.OUT_OF_BOUNDS: "Set the host's clock; where it is right, give the receiver a window for old times "
    "(Prometheus: storage.tsdb.out_of_order_time_window).",
    Refusal.DUPLICATE: "Look for a second sender with the same run id, attempt and rank.",
    Refusal.TOO_LARGE: "Raise the largest request that the receiver takes.",
    Refusal.LIMIT: "Raise the receiver's limit, or log fewer keys and sources.",
}
"""Advice for reasons that have some of their own: one imperative sentence."""


def reasons_text(counts: Mapping[str, float]) -> str:
    """Return counts by reason as people read them, the most frequent first; empty without any.

    Examples:
        >>> from otel_train.refusals import reasons_text
        >>> reasons_text({"too_old": 2, "rejected": 0, "duplicate": 3})
        'duplicate: 3, too_old: 2'
    """
    some = sorted((-count, reason) for reason, count in counts.items() if count)
    return ", ".join(f"{reason}: {-count:.0f}" for count, reason in some)
