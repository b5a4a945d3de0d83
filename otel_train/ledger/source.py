"""The interval's counts and the clock of a ledger: what `StateLedger` and `LedgerMeter` have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from otel_train.arguments import check_fields, whole_number
from otel_train.catalogue import HEADLINE_KEYS, LEDGER, REUSE_BOUNDS, Layout, Metric
from otel_train.event_sink import EventSink
from otel_train.exceptions import StateMismatchError
from otel_train.torch_modes import outside_modes
from otel_train.untraced import untraced

OVERFLOW = "overflow"
STALE = "stale"


@dataclass(slots=True)
class Counts:
    """What one rank counts in an interval."""

    evictions: int = 0
    stale_evictions: int = 0
    fresh_writes: int = 0
    false_evictions: int = 0
    hits: int = 0
    reuse: list[int] = field(default_factory=lambda: [0] * (len(REUSE_BOUNDS) + 1))
    """False evictions by reuse distance: a bucket for each bound, and one beyond."""
    reuse_sum: int = 0

    def count_false(self, distances: Iterable[int]) -> None:
        """Count false evictions, given their reuse distances."""
        for distance in distances:
            self.false_evictions += 1
            self.reuse[bisect_left(REUSE_BOUNDS, distance)] += 1
            self.reuse_sum += distance

    def measurements(self, entries: int, capacity: int) -> list[float]:
        """Return float [places], in the order of `Layout(LEDGER)`."""
        return [
            self.evictions,
            self.stale_evictions,
            self.fresh_writes,
            self.false_evictions,
            entries,
            capacity,
            self.hits,
            *self.reuse,
            self.reuse_sum,
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"reuse": list(self.reuse)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Counts:
        """Return the counts that `state_dict` gave.

        Raises:
            StateMismatchError: It is something else, or of another version.
        """
        check_fields(state, cls.__slots__, "a ledger (its interval)")
        numbers = {name: int(state[name]) for name in cls.__slots__ if name != "reuse"}
        counts = cls(**numbers, reuse=[int(count) for count in state["reuse"]])
        if len(counts.reuse) != len(cls().reuse):
            raise StateMismatchError(
                f"a ledger's interval must have {len(cls().reuse)} buckets of the reuse distance, got "
                f"{len(counts.reuse)}; it is of another version of otel_train"
            )
        return counts

    @classmethod
    def total(cls, counts: Iterable[Counts]) -> Counts:
        """Return the sum of the counts of several ranks."""
        total = cls()
        for one in counts:
            for name in cls.__slots__:
                if name != "reuse":
                    setattr(total, name, getattr(total, name) + getattr(one, name))
            total.reuse = [left + right for left, right in zip(total.reuse, one.reuse, strict=True)]
        return total


@untraced
class LedgerSource(ABC):
    """A source of the ledger's metrics, with a clock that counts steps from 1.

    Args:
        capacity: Entries that this rank can hold.
        recently_evicted: Keys of evicted entries that are remembered; as many as the capacity by default.
        step: The step that is being assembled.
        events: Takes an event for each thing that happens; None costs nothing.

    Raises:
        ConfigurationError: An argument breaks a rule; the message names it.
    """

    metrics: ClassVar[tuple[Metric, ...]] = LEDGER
    modalities: ClassVar[tuple[str, ...]] = ()
    _layout: ClassVar[Layout] = Layout(LEDGER)
    # The four counters come first in the catalogue's order and in the measurements'.
    _headline: ClassVar[tuple[str, ...]] = tuple(row.wandb_key for row in LEDGER if row.wandb_key in HEADLINE_KEYS)

    def __init__(self, capacity: int, recently_evicted: int | None, step: int, events: EventSink | None) -> None:
        self.capacity = capacity = whole_number(
            "capacity", capacity, least=1, remedy="set it to the number of streams a rank should hold"
        )
        if recently_evicted is not None:
            recently_evicted = whole_number(
                "recently_evicted", recently_evicted, least=1, remedy="leave it out for the capacity"
            )
        step = whole_number("step", step, least=0, remedy="give the step that is being assembled")
        self.last_extra_metrics: dict[str, float] = dict.fromkeys(self._headline, 0.0)
        """This rank's four counters in the interval that was drained last, by wandb key."""
        self._ring_capacity = capacity if recently_evicted is None else recently_evicted
        self._counts = Counts()
        self._step = step
        self._events = events

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of entries that this rank holds."""

    @property
    def facts(self) -> dict[str, int]:
        """How it is set up, for people who look at a ring."""
        return {"ledger.capacity": self.capacity, "ledger.recently_evicted": self._ring_capacity}

    def _evict_stale(self) -> int:
        """Evict what sat unused for too long and return the count; a cache without such a rule has nothing to do."""
        return 0

    def _settle(self, step: int) -> None:  # noqa: B027  # a cache that remembers no steps has nothing to do
        """Give what was used since the last step that ended to the step that ends now, instead of to `_step`."""

    @outside_modes
    def end_step(self, step: int) -> None:
        """Note the end of a step that is no log step: what comes now belongs to the next one.

        Args:
            step: The step that ends.
        """
        self._finish(step)
        self._step = step + 1

    def _finish(self, step: int) -> None:
        if step != self._step:
            # Steps may be told of with a stride, and a job may begin at any of them.
            self._settle(step)
        self._step = step
        self._counts.stale_evictions += self._evict_stale()

    @outside_modes
    def drain_measurements(self, step: int | None = None) -> list[float]:
        """End the interval with `step` and return what it measured, flat.

        Args:
            step: The step that ends; by default the one after the last that ended.

        Returns:
            float [sums] in the order of `Layout(LEDGER)`; a ledger gives no peaks of its own.
        """
        self._finish(self._step if step is None else step)
        values = self._counts.measurements(len(self), self.capacity)
        self.last_extra_metrics = {key: float(value) for key, value in zip(self._headline, values, strict=False)}
        self._counts = Counts()
        self._step += 1
        return values

    def drain_step_metrics(self, step: int | None = None) -> dict[str, float]:
        """End the interval with `step` and return this rank's own values, by wandb key.

        Args:
            step: The step that ends; by default the one after the last that ended.

        Returns:
            Counters, their maxima (over this one rank) and the fill; the reuse distance has no wandb key.
        """
        values = [float(value) for value in self.drain_measurements(step)]
        return self._layout.by_key(values, self._layout.complete_peaks(values, ()))

    def _emit(self, event: str, keys: Iterable[int], **also: object) -> None:
        """Write an event for each key; ask for `_events` first where the keys have a cost."""
        if self._events is not None:
            for key in keys:
                self._events({"event": event, "step": self._step, "key": key, **also})

    def _emit_wipe(self) -> None:
        if self._events is not None:
            self._events({"event": "wipe", "step": self._step})
