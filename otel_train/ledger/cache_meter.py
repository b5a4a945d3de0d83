"""Measure a cache of the user's own as `StateLedger` measures itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from otel_train.arguments import check_fields, reading_state, whole_number
from otel_train.catalogue import LEDGER, Metric
from otel_train.event_sink import EventSink
from otel_train.exceptions import ConfigurationError
from otel_train.ledger.cache_interval import OVERFLOW, STALE, CacheInterval, Counts, by_wandb_key
from otel_train.ledger.eviction_order import EvictionOrder
from otel_train.stable_hash import stable_hash
from otel_train.training_counter import TrainingCounter
from otel_train.untraced import untraced


@untraced
class LedgerMeter(TrainingCounter, counting="hit store evict"):
    """Measures of one rank's cache: the cache decides, and reports to the meter.

    A key must be reported on one rank only, the one that holds it. A call costs about a microsecond, a
    false eviction a few.

    Examples:
        >>> import otel_train
        >>> meter = otel_train.LedgerMeter(capacity=1024)
        >>> with otel_train.init(sources=[meter], blocking=True) as telemetry:
        ...     meter.hit()                                    # a look-up that has an entry
        ...     meter.store("doc-17")                          # an entry is written, new or not
        ...     meter.evict("doc-3")                           # the cache drops an entry to make room
        ...     meter.evict("doc-4", "stale")                  # ... or because nobody used it
        ...     values = telemetry.step(1)
        >>> values["ledger/evictions"], values["ledger/stale_evictions"], values["ledger/fresh_writes"]
        (1.0, 1.0, 1.0)

    Args:
        capacity: Entries that this rank's cache can hold.
        recently_evicted: Keys of evicted entries that are remembered; as many as the capacity by default.
        step: The step that is being assembled.
        events: Takes an event for each thing that happens; None (the default) costs nothing.

    Raises:
        ConfigurationError: An argument breaks a rule; the message names it.
    """

    metrics: ClassVar[tuple[Metric, ...]] = LEDGER
    modalities: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, capacity: int, *, recently_evicted: int | None = None, step: int = 1, events: EventSink | None = None
    ) -> None:
        self._interval = CacheInterval(capacity, recently_evicted, step, events)
        self.capacity = self._interval.capacity
        """Entries that this rank's cache can hold."""
        self._held: set[str | int] = set()
        self._recently_evicted: EvictionOrder[str | int] = EvictionOrder(self._interval.recently_evicted)

    def __len__(self) -> int:
        return len(self._held)

    def hit(self, entries: int = 1) -> None:
        """Count look-ups that found their entry.

        Raises:
            ConfigurationError: `entries` is not a whole number, or negative.
        """
        self._interval.counts.hits += whole_number("entries", entries, least=0, remedy="give the number of look-ups")

    def store(self, key: str | int) -> None:
        """Note that the entry of `key` is written; call it before the evictions that make room for it.

        A cache may store several entries before it makes room for all of them.

        Raises:
            ShapeMismatchError: The key is neither a string nor an integer of 64 bits.
        """
        if type(key) is not str:
            stable_hash(key)
        if self._interval.events is not None:
            self._interval.emit("store", [stable_hash(key)])
        if key in self._held:
            return
        self._held.add(key)
        self._interval.counts.fresh_writes += 1
        if key in self._recently_evicted:
            self._interval.counts.count_false(self._recently_evicted.take(key))

    def evict(self, key: str | int, why: str = OVERFLOW) -> None:
        """Note that the cache drops the entry of `key`.

        Args:
            key: Its key. One that was never stored counts too: the cache may be older than the meter.
            why: "overflow" for lack of room, "stale" because it sat unused.

        Raises:
            ConfigurationError: `why` is something else.
            ShapeMismatchError: The key is neither a string nor an integer of 64 bits.
        """
        if type(key) is not str:
            stable_hash(key)
        if why == OVERFLOW:
            self._interval.counts.evictions += 1
        elif why == STALE:
            self._interval.counts.stale_evictions += 1
        else:
            raise ConfigurationError(f"why must be {OVERFLOW!r} or {STALE!r}, got {why!r}; use discard() for the rest")
        self._held.discard(key)
        self._recently_evicted.add(key)
        if self._interval.events is not None:
            self._interval.emit("evict", [stable_hash(key)], why=why)

    def discard(self, key: str | int) -> None:
        """Note that the entry of `key` is gone on purpose, as when its stream ended: this is not an eviction."""
        self._held.discard(key)

    def wipe(self) -> None:
        """Note that every entry was dropped on purpose; the ring of evicted keys is cleared as well."""
        self._held.clear()
        self._recently_evicted.clear()
        self._interval.emit_wipe()

    @property
    def step(self) -> int:
        """The step that is being assembled."""
        return self._interval.step

    @property
    def last_extra_metrics(self) -> dict[str, float]:
        """This rank's four counters in the interval that was drained last, by wandb key."""
        return self._interval.last_extra_metrics

    @property
    def facts(self) -> dict[str, int]:
        """Configuration, for people who look at a ring."""
        return self._interval.facts

    def end_step(self, step: int) -> None:
        """Note the end of a step that is not a log step: what comes now belongs to the next one.

        Args:
            step: The step that ends.
        """
        self._interval.step = step + 1

    def drain_measurements(self, step: int | None = None) -> list[float]:
        """End the interval with `step` and return its measurements, flat.

        Args:
            step: The step that ends; by default the one after the last that ended.

        Returns:
            float [sums] in the order of `Layout(LEDGER)`; a ledger gives no peaks of its own.
        """
        return self._interval.drain(self._interval.step if step is None else step, len(self))

    def drain_step_metrics(self, step: int | None = None) -> dict[str, float]:
        """End the interval with `step` and return this rank's own values, by wandb key.

        Args:
            step: The step that ends; by default the one after the last that ended.

        Returns:
            Counters, their maxima (over this one rank) and the fill; the reuse distance has no wandb key.
        """
        return by_wandb_key(self.drain_measurements(step))

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved."""
        return {
            "step": self._interval.step,
            "held": list(self._held),
            "recently_evicted": list(self._recently_evicted),
            "interval": self._interval.counts.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; a smaller ring keeps the newest keys.

        Raises:
            StateMismatchError: It is the state of something else, or of another version. Nothing is changed then.
        """
        check_fields(state, ("step", "held", "recently_evicted", "interval"), "LedgerMeter")
        ring: EvictionOrder[str | int] = EvictionOrder(self._interval.recently_evicted)
        with reading_state("LedgerMeter"):
            step, held = int(state["step"]), set(state["held"])
            ring.extend(state["recently_evicted"])
            counts = Counts.from_state_dict(state["interval"])
        self._interval.step, self._interval.counts = step, counts
        self._held, self._recently_evicted = held, ring
