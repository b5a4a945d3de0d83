"""Measure a cache of the user's own as `StateLedger` measures itself."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from otel_train.arguments import check_fields, reading_state, whole_number
from otel_train.event_sink import EventSink
from otel_train.exceptions import ConfigurationError
from otel_train.ledger.hashing import stable_hash
from otel_train.ledger.source import OVERFLOW, STALE, Counts, LedgerSource
from otel_train.untraced import untraced


@untraced
class LedgerMeter(LedgerSource):
    """Measures of one rank's cache: the cache decides, the meter is told.

    A key must be reported on one rank only, the one that holds it. A call costs about a microsecond; a false eviction
    as many steps of a loop as its reuse distance.

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

    def __init__(
        self, capacity: int, *, recently_evicted: int | None = None, step: int = 1, events: EventSink | None = None
    ) -> None:
        super().__init__(capacity, recently_evicted, step, events)
        self._held: set[str | int] = set()
        self._recently_evicted: OrderedDict[str | int, None] = OrderedDict()
        self._taken: list[int] = []
        """Where the keys stood that left the ring since the last eviction, in order."""

    def __len__(self) -> int:
        return len(self._held)

    def hit(self, entries: int = 1) -> None:
        """Count look-ups that found their entry.

        Raises:
            ConfigurationError: `entries` is no whole number, or negative.
        """
        self._counts.hits += whole_number("entries", entries, least=0, remedy="give the number of look-ups")

    def store(self, key: str | int) -> None:
        """Note that the entry of `key` is written; call it before the evictions that make room for it.

        A cache may store several entries before it makes room for all of them.

        Raises:
            ShapeMismatchError: The key is neither a string nor an integer of 64 bits.
        """
        if type(key) is not str:
            stable_hash(key)
        if self._events is not None:
            self._emit("store", [stable_hash(key)])
        if key in self._held:
            return
        self._held.add(key)
        self._counts.fresh_writes += 1
        if key in self._recently_evicted:
            for distance, other in enumerate(reversed(self._recently_evicted), start=1):
                if other == key:
                    self._counts.count_false([self._before(distance)])
                    break
            del self._recently_evicted[key]

    def _before(self, place: int) -> int:
        """Return the place that a key had in the ring before others left it, of whom none has made room yet."""
        for taken in self._taken:
            place += taken <= place
        insort(self._taken, place)
        return place

    def evict(self, key: str | int, why: str = OVERFLOW) -> None:
        """Note that the cache drops the entry of `key`.

        Args:
            key: Its key. One that was never stored counts too: the cache may be older than the meter.
            why: "overflow" for want of room, "stale" because it sat unused.

        Raises:
            ConfigurationError: `why` is something else.
            ShapeMismatchError: The key is neither a string nor an integer of 64 bits.
        """
        if type(key) is not str:
            stable_hash(key)
        if why == OVERFLOW:
            self._counts.evictions += 1
        elif why == STALE:
            self._counts.stale_evictions += 1
        else:
            raise ConfigurationError(f"why must be {OVERFLOW!r} or {STALE!r}, got {why!r}; use discard() for the rest")
        self._held.discard(key)
        self._taken.clear()
        self._recently_evicted[key] = None
        self._recently_evicted.move_to_end(key)
        if len(self._recently_evicted) > self._ring_capacity:
            self._recently_evicted.popitem(last=False)
        if self._events is not None:
            self._emit("evict", [stable_hash(key)], why=why)

    def discard(self, key: str | int) -> None:
        """Note that the entry of `key` is gone on purpose (its stream ended): no eviction, and never a false one."""
        self._held.discard(key)

    def wipe(self) -> None:
        """Note that every entry was dropped on purpose; the ring of evicted keys is cleared as well."""
        self._held.clear()
        self._taken.clear()
        self._recently_evicted.clear()
        self._emit_wipe()

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved."""
        return {
            "step": self._step,
            "held": list(self._held),
            "recently_evicted": list(self._recently_evicted),
            "interval": self._counts.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; a smaller ring keeps the newest keys.

        Raises:
            StateMismatchError: It is the state of something else, or of another version. Nothing is changed then.
        """
        check_fields(state, ("step", "held", "recently_evicted", "interval"), "LedgerMeter")
        with reading_state("LedgerMeter"):
            step, held = int(state["step"]), set(state["held"])
            ring = OrderedDict.fromkeys(state["recently_evicted"][-self._ring_capacity :])
            counts = Counts.from_state_dict(state["interval"])
        self._step, self._held, self._recently_evicted, self._counts = step, held, ring, counts
        self._taken.clear()
