"""The interval that a cache is in, its counts and its clock: the part that `StateLedger` and `LedgerMeter` share."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from otel_train.arguments import check_fields, whole_number
from otel_train.catalogue import HEADLINE_KEYS, LEDGER, REUSE_BOUNDS, Layout
from otel_train.event_sink import EventSink
from otel_train.exceptions import StateMismatchError

OVERFLOW = "overflow"
STALE = "stale"
_LAYOUT = Layout(LEDGER)
# The four counters come first in the catalogue's order and in the measurements'.
_COUNTERS = tuple(row.wandb_key for row in LEDGER if row.wandb_key in HEADLINE_KEYS)


@dataclass(slots=True)
class Counts:
    """The counts of one rank in an interval."""

    evictions: int = 0
    stale_evictions: int = 0
    fresh_writes: int = 0
    false_evictions: int = 0
    hits: int = 0
    reuse: list[int] = field(default_factory=lambda: [0] * (len(REUSE_BOUNDS) + 1))
    """False evictions by reuse distance: a bucket for each bound, and one beyond."""
    reuse_sum: int = 0

    def count_false(self, distance: int) -> None:
        """Count a false eviction, given its reuse distance."""
        self.false_evictions += 1
        self.reuse[bisect_left(REUSE_BOUNDS, distance)] += 1
        self.reuse_sum += distance

    def add_false(self, reuse: Collection[int], reuse_sum: int) -> None:
        """Add false evictions, given as counts by reuse distance, with the sum of their distances."""
        self.reuse = [count + more for count, more in zip(self.reuse, reuse, strict=True)]
        self.false_evictions += sum(reuse)
        self.reuse_sum += reuse_sum

    def measurements(self, entries: int, capacity: int) -> list[float]:
        """Return float [sums], in the order of `Layout(LEDGER)`."""
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


class CacheInterval:
    """The interval that one rank's cache is in, with a clock that counts steps from 1.

    Args:
        capacity: Entries that this rank can hold.
        recently_evicted: Keys of evicted entries that are remembered; as many as the capacity by default.
        step: The step that is being assembled.
        events: Takes an event for each thing that happens; None costs nothing.

    Raises:
        ConfigurationError: An argument breaks a rule; the message names it.
    """

    def __init__(self, capacity: int, recently_evicted: int | None, step: int, events: EventSink | None) -> None:
        self.capacity = whole_number(
            "capacity", capacity, least=1, remedy="set it to the number of streams a rank should hold"
        )
        """Entries that this rank can hold."""
        self.recently_evicted = self.capacity
        """Keys of evicted entries that are remembered."""
        if recently_evicted is not None:
            self.recently_evicted = whole_number(
                "recently_evicted", recently_evicted, least=1, remedy="leave it out for the capacity"
            )
        self.step = whole_number("step", step, least=0, remedy="give the step that is being assembled")
        """The step that is being assembled."""
        self.counts = Counts()
        """Counts since the last drain."""
        self.events = events
        """Receiver of events; ask for it first where an event's keys have a cost."""
        self.last_extra_metrics: dict[str, float] = dict.fromkeys(_COUNTERS, 0.0)
        """This rank's four counters in the interval that was drained last, by wandb key."""

    @property
    def facts(self) -> dict[str, int]:
        """Configuration, for people who look at a ring."""
        return {"ledger.capacity": self.capacity, "ledger.recently_evicted": self.recently_evicted}

    def drain(self, step: int, entries: int) -> list[float]:
        """End the interval with `step` and return its measurements, flat.

        Args:
            step: The step that ends.
            entries: Entries that the cache holds.

        Returns:
            float [sums] in the order of `Layout(LEDGER)`; a ledger gives no peaks of its own.
        """
        values = self.counts.measurements(entries, self.capacity)
        self.last_extra_metrics = {key: float(value) for key, value in zip(_COUNTERS, values, strict=False)}
        self.counts = Counts()
        self.step = step + 1
        return values

    def emit(self, event: str, keys: Iterable[int], **also: object) -> None:
        """Send an event for each key."""
        if self.events is not None:
            for key in keys:
                self.events({"event": event, "step": self.step, "key": key, **also})

    def emit_wipe(self) -> None:
        """Send the event of a wipe."""
        if self.events is not None:
            self.events({"event": "wipe", "step": self.step})


def by_wandb_key(measurements: Iterable[float]) -> dict[str, float]:
    """Return the values of one rank's measurements, by wandb key; the reuse distance has none."""
    values = [float(value) for value in measurements]
    return _LAYOUT.by_key(values, _LAYOUT.complete_peaks(values, ()))
