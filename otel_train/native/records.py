"""Attributes that the core reads and writes at each step: of C where it is built, else of Python.

A class that has some inherits from its record, so that what is rare is written once, in Python, for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_train.native import core

__all__ = ["PICKS", "Clock", "IntervalState", "Picks", "Ring", "Steps"]


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


class Clock:
    """Times of a session; see `StepClock`."""

    __slots__ = ("began", "last_step", "last_time_ns", "newest", "stamped", "wait")
    began: float
    """Time at which the interval began, by the steady clock."""
    last_step: int
    """Step that the interval before ended with; negative in the first."""
    last_time_ns: int
    """The newest time stamp."""
    newest: float
    """Time at which the newest step ended, by the steady clock."""
    stamped: float
    """Time of the newest stamp, by the steady clock."""
    wait: float
    """Seconds of the interval that were spent waiting for data."""


class Ring:
    """Counts of a ring's writer; see `RingWriter`."""

    __slots__ = ("numbered", "step", "writing", "written")
    numbered: int
    """Ordinal of the last record with the cluster's values, shifted as in a record."""
    step: int
    """The last step that the rank has ended."""
    writing: bool
    """Whether Python is in the middle of writing several records, which are one to a reader."""
    written: int
    """Records so far."""

    def bind(self, mapping: Any, first: int, size: int, records: int, body: int) -> None:
        """Name the mapping to the core, and the sizes in it."""

    def unbind(self) -> None:
        """Have the core let go of the mapping."""


class IntervalState:
    """State of the interval of a rank's measurements; see `Recorder`."""

    __slots__ = ("dropped", "late", "on_device")
    dropped: float
    """Values of the interval that were dropped."""
    late: bool
    """Whether it has a value under a key that came after the first step."""
    on_device: bool
    """Whether a part of its scalars is on a GPU."""

    def __init__(self) -> None:
        self.dropped, self.late, self.on_device = 0.0, False, False

    def bind(self, means: dict[str, int], totals: dict[str, int], *arrays: Any) -> None:
        """Name to the core where the scalars are, and the arrays that a record is made in."""


class Steps:
    """State of a session's steps; see `Recording`."""

    __slots__ = (
        "alone",
        "busy",
        "every",
        "given",
        "last_step",
        "logs",
        "newest_ns",
        "newest_step",
        "open",
        "plain",
        "stride",
        "strides",
    )
    alone: bool
    """Whether what this rank measures is the cluster's."""
    busy: int
    """Thread in which the core is making a step right now; 0 where it makes none."""
    every: int
    """Steps in an interval."""
    given: int
    """The last step that the user has told of; negative before the first."""
    last_step: int
    """The last step that has ended."""
    logs: bool
    """Whether the last step is a log step."""
    newest_ns: int
    """Time stamp of `newest_step`."""
    newest_step: int
    """The newest step that the core has recorded alone; negative before the first."""
    open: bool
    """Whether scalars came beside the steps since the last record."""
    plain: bool
    """Whether the next step is one for the core, where it is built: nothing is held, and nobody waits for it."""
    stride: int
    """Least distance so far from one step that is told to the next."""
    strides: bool
    """Whether there were two steps yet."""

    def __init__(self) -> None:
        self.alone = self.logs = self.open = self.plain = self.strides = False
        self.busy = self.every = self.stride = self.given = self.last_step = self.newest_ns = self.newest_step = 0

    def bind(self, *parts: Any) -> None:
        """Name to the core what a step is made of."""

    def unbind(self) -> None:
        """Have the core let go of it all; who has kept `step` still calls Python."""

    def step(self, *arguments: Any, **options: Any) -> Any:
        """Make a step, as `Telemetry.step` does; the core's only."""
        raise NotImplementedError


PICKS = Picks.__slots__
"""The attributes of `Picks`."""
if core is not None:
    Picks, Clock, Ring = core.Picks, core.Clock, core.Ring  # type: ignore[misc]
    IntervalState, Steps = core.IntervalState, core.Steps  # type: ignore[misc]
