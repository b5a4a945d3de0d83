"""A ledger written with ordered dicts: one rank's shard, key by key."""

from collections import OrderedDict
from typing import Any

from otel_train.catalogue import REUSE_BOUNDS


class Model:
    """One rank's entries and the ring of evicted keys; states are any values."""

    def __init__(self, capacity: int, ring: int | None = None, max_idle_steps: int | None = None) -> None:
        self.capacity, self.ring_capacity, self.max_idle_steps = capacity, ring or capacity, max_idle_steps
        self.entries: OrderedDict[Any, Any] = OrderedDict()
        self.last_used: dict[Any, int] = {}
        self.ring: OrderedDict[Any, None] = OrderedDict()
        self.step = 1
        self.begin_interval()

    def begin_interval(self) -> None:
        """Set the counts to zero."""
        self.evictions = self.stale = self.fresh = self.hits = 0
        self.distances: list[int] = []

    def fetch(self, keys: list[Any]) -> list[Any]:
        """Return the state of each key, None where there is none."""
        states = []
        for key in keys:
            if key in self.entries:
                self.hits += 1
                self.use(key, self.entries[key])
            states.append(self.entries.get(key))
        return states

    def store(self, pairs: list[tuple[Any, Any]]) -> None:
        """Write (key, state) pairs; the last of a key counts. All are looked up before any makes room."""
        before = list(self.ring)
        for index, (key, state) in enumerate(pairs):
            if any(later == key for later, _ in pairs[index + 1 :]):
                continue
            if key not in self.entries:
                self.fresh += 1
                if key in self.ring:
                    self.distances.append(len(before) - before.index(key))
                    del self.ring[key]
            self.use(key, state)
        while len(self.entries) > self.capacity:
            self.evictions += 1
            self.evict(next(iter(self.entries)))

    def use(self, key: Any, state: Any) -> None:
        """Move a key to the new end."""
        self.entries[key] = state
        self.entries.move_to_end(key)
        self.last_used[key] = self.step

    def evict(self, key: Any) -> None:
        """Move a key from the entries to the ring."""
        del self.entries[key]
        self.ring[key] = None
        self.ring.move_to_end(key)
        if len(self.ring) > self.ring_capacity:
            self.ring.popitem(last=False)

    def wipe(self) -> None:
        """Drop everything."""
        self.entries.clear()
        self.ring.clear()

    def end_step(self) -> None:
        """Evict what is stale and go to the next step."""
        if self.max_idle_steps is not None:
            for key in list(self.entries):
                if self.step - self.last_used[key] > self.max_idle_steps:
                    self.stale += 1
                    self.evict(key)
        self.step += 1

    def drain(self) -> list[float]:
        """Return the interval's measurements."""
        self.end_step()
        lows = (0.0, *REUSE_BOUNDS)
        highs = (*REUSE_BOUNDS, float("inf"))
        buckets = [
            sum(low < distance <= high for distance in self.distances) for low, high in zip(lows, highs, strict=True)
        ]
        values: list[float] = [
            self.evictions,
            self.stale,
            self.fresh,
            len(self.distances),
            len(self.entries),
            self.capacity,
        ]
        values += [self.hits, *buckets, sum(self.distances)]
        self.begin_interval()
        return values
