"""One rank's part of the ledger: the slab of states, the order of use, the evictions and their counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from otel_train.arguments import MAX_SHOWN, whole_number
from otel_train.event_sink import EventSink
from otel_train.exceptions import ConfigurationError
from otel_train.ledger.evicted import EvictedKeys
from otel_train.ledger.ordered_keys import OrderedKeys
from otel_train.ledger.routing import last_occurrences
from otel_train.ledger.source import OVERFLOW, STALE, Counts, LedgerSource
from otel_train.torch_modes import outside_modes
from otel_train.untraced import untraced

_EMPTY = torch.empty(0, dtype=torch.int64, device="cpu")
_NEVER = 2**62
"""The last used step of a free row: it never gets stale."""


class Fetched(NamedTuple):
    """What a fetch returns.

    Examples:
        >>> import otel_train
        >>> fetched = otel_train.StateLedger([4], capacity=8).fetch(["doc-17"])
        >>> fetched.states.shape, fetched.found
        (torch.Size([1, 4]), tensor([False]))
    """

    states: torch.Tensor
    """[n, *state_shape] on the ledger's device, in the order of the ids; zeros where there is no entry."""
    found: torch.Tensor
    """bool [n] on the same device: whether there is an entry."""


@untraced
class Shard(LedgerSource):
    """The entries that one rank owns. Keys and their order live on the CPU, the states in one slab on `device`.

    Nothing here knows of other ranks: `StateLedger` brings the keys to their owner.

    Args:
        state_shape: Shape of one state.
        capacity: Entries that the slab holds.
        dtype: Of the states.
        device: Of the slab.
        max_idle_steps: Steps after which an unused entry is dropped; None for never.
        recently_evicted: Keys of evicted entries that are remembered; as many as the capacity by default.
        step: The step that is being assembled.
        events: Takes an event for each thing that happens; None costs nothing.

    Raises:
        ConfigurationError: An argument breaks a rule; the message names it.
    """

    def __init__(
        self,
        state_shape: Sequence[int],
        *,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        max_idle_steps: int | None = None,
        recently_evicted: int | None = None,
        step: int = 1,
        events: EventSink | None = None,
    ) -> None:
        super().__init__(capacity, recently_evicted, step, events)
        capacity = self.capacity
        self.state_shape = _checked_shape(state_shape)
        if max_idle_steps is not None:
            max_idle_steps = whole_number(
                "max_idle_steps", max_idle_steps, least=1, remedy="leave it out to keep unused entries"
            )
        self.max_idle_steps = max_idle_steps
        if not isinstance(dtype, torch.dtype):
            raise ConfigurationError(
                f"dtype must be a torch.dtype, got {dtype!r:.{MAX_SHOWN}}; torch.float32 is the default"
            )
        try:
            device = torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise ConfigurationError(
                f"device must be one of torch's, got {device!r:.{MAX_SHOWN}}: {error!s:.200}"
            ) from error
        self._slab = torch.zeros(capacity, *self.state_shape, dtype=dtype, device=device)
        self._entries = OrderedKeys(capacity)
        self._last_used_step = torch.full((capacity,), _NEVER, dtype=torch.int64, device="cpu")
        self._recently_evicted = EvictedKeys(self._ring_capacity)

    @property
    def dtype(self) -> torch.dtype:
        """Of the states."""
        return self._slab.dtype

    @property
    def device(self) -> torch.device:
        """Of the states, with its index."""
        return self._slab.device

    @property
    def facts(self) -> dict[str, int]:
        """How it is set up, for people who look at a ring; no `max_idle_steps` where there is no such rule."""
        idle = {} if self.max_idle_steps is None else {"ledger.max_idle_steps": self.max_idle_steps}
        entry = math.prod(self.state_shape) * self.dtype.itemsize
        return {**super().facts, **idle, "ledger.entry_bytes": entry}

    @property
    def needs_clock(self) -> bool:
        """Whether `end_step` does anything: only then does a session call it that is off."""
        return self.max_idle_steps is not None

    def __len__(self) -> int:
        return len(self._entries)

    # -- use -----------------------------------------------------------------------------------------------------

    def _fetch_state(self, keys: torch.Tensor) -> Fetched:
        """Return the states of keys of this shard; a use of those that are held.

        Args:
            keys: int64 [n] on the CPU, duplicates too; the order of use is that of their last occurrences.

        Returns:
            States and whether they are there, in the order of the keys.
        """
        rows = self._entries.find(keys)
        found = rows >= 0
        held = rows[found]
        self._counts.hits += len(held)
        self._use(held[last_occurrences(held)])
        states = self._slab.index_select(0, rows.clamp(min=0).to(self.device))
        states[(~found).nonzero()[:, 0].to(self.device)] = 0
        return Fetched(states, found.to(self.device))

    def _store_state(self, keys: torch.Tensor, states: torch.Tensor) -> None:
        """Write the states of keys of this shard: all are used in their order, then the overflow is evicted.

        A key that is not held is a fresh write, and a false eviction where it was evicted a short while ago. Of more
        keys than the slab has rows, the first ones never take a row: they are evicted as they come.

        Args:
            keys: int64 [n] on the CPU, distinct.
            states: [n, *state_shape], with the slab's dtype and device.
        """
        rows = self._entries.find(keys)
        fresh = rows < 0
        if self._events is not None:
            self._emit("store", keys.tolist())
        if bool(fresh.any()):
            self._count_fresh(keys[fresh])
            self._use(rows[~fresh])
            self._counts.evictions += self._evict_lru_overflow(keys, rows)
            first = max(0, len(keys) - self.capacity)
            keys, rows, fresh, states = keys[first:], rows[first:], fresh[first:], states[first:]
            rows[fresh] = self._entries.add(keys[fresh])
        self._use(rows)
        self._slab.index_copy_(0, rows.to(self.device), states)

    def _count_fresh(self, keys: torch.Tensor) -> None:
        self._counts.fresh_writes += len(keys)
        self._counts.count_false(self._recently_evicted.take(keys).tolist())

    def _use(self, rows: torch.Tensor) -> None:
        self._entries.touch(rows)
        self._last_used_step.index_fill_(0, rows, self._step)

    # -- evictions -----------------------------------------------------------------------------------------------

    def _evict_lru_overflow(self, keys: torch.Tensor = _EMPTY, rows: torch.Tensor = _EMPTY) -> int:
        """Evict the least recently used entries, so that those that are not held find room.

        Args:
            keys: int64 [n], distinct: what is being written, the last in the order of use.
            rows: int64 [n]: their rows, -1 where a key is not held.

        Returns:
            How many were evicted.
        """
        excess = len(self) + int((rows < 0).sum()) - self.capacity
        if excess <= 0:
            return 0
        # If the call alone overflows the slab, all other entries go, and then the first keys of the call itself.
        surplus = max(0, len(keys) - self.capacity)
        oldest = self._entries.oldest(excess - surplus)
        evicted = torch.cat([self._entries.keys[oldest], keys[:surplus]])
        held = rows[:surplus]
        self._drop(torch.cat([oldest, held[held >= 0]]))
        self._recently_evicted.add(evicted)
        if self._events is not None:
            self._emit("evict", evicted.tolist(), why=OVERFLOW)
        return excess

    def _evict_stale(self) -> int:
        """Evict the entries that sat unused for more than `max_idle_steps`, and return how many."""
        if self.max_idle_steps is None:
            return 0
        is_stale = self._last_used_step < self._step - self.max_idle_steps
        if not bool(is_stale.any()):
            return 0
        rows = self._entries.in_order()
        stale = rows[is_stale[rows]]
        evicted = self._entries.keys[stale]
        self._drop(stale)
        self._recently_evicted.add(evicted)
        if self._events is not None:
            self._emit("evict", evicted.tolist(), why=STALE)
        return len(stale)

    @outside_modes
    def wipe(self) -> None:
        """Drop every entry of this rank and clear the ring of evicted keys; the interval's counts stay.

        What is wiped on purpose is no eviction, and its return no false one.
        """
        self._clear()
        self._emit_wipe()

    def _drop(self, rows: torch.Tensor) -> None:
        self._entries.remove(rows)
        self._last_used_step[rows] = _NEVER

    def _clear(self) -> None:
        self._entries.clear()
        self._last_used_step.fill_(_NEVER)
        self._recently_evicted.clear()

    def _settle(self, step: int) -> None:
        self._last_used_step.masked_fill_(self._last_used_step == self._step, step)

    # -- state ---------------------------------------------------------------------------------------------------

    def _shard_state(self) -> dict[str, Any]:
        rows = self._entries.in_order()
        return {
            "step": self._step,
            "keys": self._entries.keys[rows],
            "states": self._slab[rows.to(self.device)],
            "last_used_step": self._last_used_step[rows],
            "recently_evicted": self._recently_evicted.in_order(),
            "interval": self._counts.state_dict(),
        }

    def _load_shard_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that has been checked; entries that find no room are evicted, the oldest first."""
        surplus = max(0, len(state["keys"]) - self.capacity)
        counts = Counts.from_state_dict(state["interval"])
        self._clear()
        self._counts = counts
        self._step = int(state["step"])
        rows = self._entries.add(state["keys"][surplus:].cpu())
        self._slab[rows.to(self.device)] = state["states"][surplus:].to(self.device)
        self._last_used_step[rows] = state["last_used_step"][surplus:].cpu()
        self._recently_evicted.add(state["recently_evicted"].cpu())
        if surplus:
            evicted = state["keys"][:surplus].cpu()
            self._counts.evictions += surplus
            self._recently_evicted.add(evicted)
            if self._events is not None:
                self._emit("evict", evicted.tolist(), why=OVERFLOW)


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, str | bytes) or not isinstance(shape, Iterable):
        raise ConfigurationError(
            f"state_shape must be a sequence of whole numbers, got {shape!r:.{MAX_SHOWN}}; (64,) is a vector of 64"
        )
    return tuple(whole_number(f"state_shape[{at}]", size, least=1) for at, size in enumerate(shape))


def describe(dtype: torch.dtype, shape: Sequence[int]) -> str:
    """Return a dtype and a shape as error messages have them."""
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"
