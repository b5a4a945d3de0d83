"""Attributes that the core reads and writes at each step: of C where it is built, else of Python.

A class that has some inherits from its record, so that what is rare is written once, in Python, for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_train.native import core

__all__ = ["PICKS", "Picks"]


class Picks:
    """What a mixing meter counts beside its arrays; see `MixingMeter`."""

    __slots__ = (
        "_active",
        "_by_batch",
        "_draws",
        "_earliest",
        "_expected",
        "_horizon",
        "_judged",
        "_order",
        "_ordered",
        "_previous",
        "_restarts",
        "_step",
        "_switches",
        "_total",
        "_total_drained",
        "_unpaired",
        "_weighed",
    )
    _active: float
    """Slots that hold a stream; a float, as records have it."""
    _by_batch: bool
    """Whether one source is drawn for each batch."""
    _draws: float
    """Draws so far: picks or, where one source is drawn for each, batches."""
    _earliest: float
    """No reader is starved before that many draws."""
    _expected: float
    """Draws at the last change of what is expected of the readers."""
    _horizon: float
    _judged: bool
    """Whether a reader of this rank can starve."""
    _order: int
    """Hash of the order of all picks, 64 bits."""
    _ordered: bool
    """Whether the interval has added to it."""
    _previous: int
    """Index of the last pick's modality."""
    _restarts: float
    _step: int
    """The step that is being made."""
    _switches: float
    _total: float
    """Picks so far."""
    _total_drained: float
    """Picks at the last drain."""
    _unpaired: float
    """Picks of the interval that are no draw which one of this rank came before."""
    _weighed: float
    """Picks at the last change of the shares, or at the last drain where that came later."""

    def _bind(self, of_slots: tuple[Any, ...], of_sources: tuple[Any, ...], twin: Callable[..., None]) -> None:
        """Name the arrays to the core, and what it leaves odd calls to."""


PICKS = Picks.__slots__
"""The attributes of `Picks`."""
if core is not None:
    Picks = core.Picks  # type: ignore[misc]
