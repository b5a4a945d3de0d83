"""Attributes that the core reads and writes at each step: of C where it is built, else of Python.

A class that has some inherits from its record, so that what is rare is written once, in Python, for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_train.native import core

__all__ = ["PICKS", "Picks"]


class Picks:
    """Counts of a mixing meter beside its arrays; see `PickCounts`."""

    __slots__ = (
        "active",
        "by_batch",
        "draws",
        "earliest",
        "expected",
        "horizon",
        "judged",
        "order",
        "ordered",
        "previous",
        "restarts",
        "step",
        "switches",
        "total",
        "total_drained",
        "unpaired",
        "weighed",
    )
    active: float
    """Slots that hold a stream; a float, as records have it."""
    by_batch: bool
    """Whether one source is drawn for each batch."""
    draws: float
    """Draws so far: picks or, where one source is drawn for each, batches."""
    earliest: float
    """No reader is starved before that many draws."""
    expected: float
    """Draws at the last change of what is expected of the readers."""
    horizon: float
    """Picks after which a pick's part in the divergence has decayed to 1/e."""
    judged: bool
    """Whether a reader of this rank can starve."""
    order: int
    """Hash of the order of all picks, 64 bits."""
    ordered: bool
    """Whether the interval has added to it."""
    previous: int
    """Index of the last pick's modality."""
    restarts: float
    """Restarts of the interval."""
    step: int
    """The step that is being made."""
    switches: float
    """Switches of the interval."""
    total: float
    """Picks so far."""
    total_drained: float
    """Picks at the last drain."""
    unpaired: float
    """Picks of the interval that are no draw which one of this rank came before."""
    weighed: float
    """Picks at the last change of the shares, or at the last drain where that came later."""

    def bind(self, of_slots: tuple[Any, ...], of_sources: tuple[Any, ...], twin: Callable[..., None]) -> None:
        """Name the arrays to the core, and what it leaves odd calls to."""


PICKS = Picks.__slots__
"""The attributes of `Picks`."""
if core is not None:
    Picks = core.Picks  # type: ignore[misc]
