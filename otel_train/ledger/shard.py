"""One rank's part of the ledger: the slab of states, the order of use, the evictions and their counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from otel_train.arguments import MAX_SHOWN, whole_number
from otel_train.exceptions import ConfigurationError
from otel_train.ledger.cache_interval import OVERFLOW, STALE, CacheInterval, Counts
from otel_train.ledger.evicted import EvictedKeys
from otel_train.ledger.ordered_keys import OrderedKeys
from otel_train.ledger.routing import last_occurrences

_EMPTY = torch.empty(0, dtype=torch.int64, device="cpu")
_NEVER = 2**62
"""The last used step of a free row: it never gets stale."""


class Fetched(NamedTuple):
    """The result of a fetch.

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


class Shard:
    """The entries that one rank owns. Keys and their order live on the CPU, the states in one slab on `device`.

    It knows of no other rank: `StateLedger` brings the keys to their owner.

    Args:
        interval: Capacity, counts, clock and events.
        state_shape: Shape of one state.
        dtype: Dtype of the states.
        device: Device of the slab.
        max_idle_steps: Steps after which an unused entry is dropped; None for never.

    Raises:
        ConfigurationError: An argument breaks a rule; the message names it.
    """

    def __init__(
        self,
        interval: CacheInterval,
        state_shape: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        max_idle_steps: int | None,
    ) -> None:
        self.state_shape = _checked_shape(state_shape)
        """Shape of one state."""
        if max_idle_steps is not None:
            max_idle_steps = whole_number(
                "max_idle_steps", max_idle_steps, least=1, remedy="leave it out to keep unused entries"
            )
        self.max_idle_steps = max_idle_steps
        """Steps after which an unused entry is dropped; None for never."""
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
        self._interval = interval
        self.capacity = interval.capacity
        """Entries that the slab holds."""
        self._slab = torch.zeros(self.capacity, *self.state_shape, dtype=dtype, device=device)
        self._entries = OrderedKeys(self.capacity)
        self._last_used_step = torch.full((self.capacity,), _NEVER, dtype=torch.int64, device="cpu")
        self.recently_evicted = EvictedKeys(interval.recently_evicted)
        """The ring of evicted keys."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the states."""
        return self._slab.dtype

    @property
    def device(self) -> torch.device:
        """Device of the states, with its index."""
        return self._slab.device

    def __len__(self) -> int:
        return len(self._entries)

    # -- use -----------------------------------------------------------------------------------------------------

    def fetch(self, keys: torch.Tensor) -> Fetched:
        """Return the states of keys of this shard; a use of those that are held.

        Args:
            keys: int64 [n] on the CPU, duplicates too; the order of use is that of their last occurrences.

        Returns:
            States and whether they are there, in the order of the keys.
        """
        rows = self._entries.find(keys)
        is_held = rows >= 0
        held = rows[is_held]
        self._interval.counts.hits += len(held)
        self._use(held[last_occurrences(held)])
        states = self._slab.index_select(0, rows.clamp(min=0).to(self.device))
        states[(~is_held).nonzero()[:, 0].to(self.device)] = 0
        return Fetched(states, is_held.to(self.device))

    def store(self, keys: torch.Tensor, states: torch.Tensor) -> None:
        """Write the states of keys of this shard: all are used in their order, then the overflow is evicted.

        A key that is not held is a fresh write, and a false eviction where it was evicted a short while ago. Of more
        keys than the slab has rows, the first ones never take a row: they are evicted as they come.

        Args:
            keys: int64 [n] on the CPU, distinct.
            states: [n, *state_shape], with the slab's dtype and device.
        """
        rows = self._entries.find(keys)
        fresh = rows < 0
        if self._interval.events is not None:
            self._interval.emit("store", keys.tolist())
        if bool(fresh.any()):
            self._count_fresh(keys[fresh])
            self._use(rows[~fresh])
            self._interval.counts.evictions += self.evict_lru_overflow(keys, rows)
            first = max(0, len(keys) - self.capacity)
            keys, rows, fresh, states = keys[first:], rows[first:], fresh[first:], states[first:]
            rows[fresh] = self._entries.add(keys[fresh])
        self._use(rows)
        self._slab.index_copy_(0, rows.to(self.device), states)

    def _count_fresh(self, keys: torch.Tensor) -> None:
        self._interval.counts.fresh_writes += len(keys)
        self._interval.counts.count_false(self.recently_evicted.take(keys).tolist())

    def _use(self, rows: torch.Tensor) -> None:
        self._entries.touch(rows)
        self._last_used_step.index_fill_(0, rows, self._interval.step)

    # -- evictions -----------------------------------------------------------------------------------------------

    def evict_lru_overflow(self, keys: torch.Tensor = _EMPTY, rows: torch.Tensor = _EMPTY) -> int:
        """Evict the least recently used entries, so that those that are not held find room.

        Args:
            keys: int64 [n], distinct: what is being written, the last in the order of use.
            rows: int64 [n]: their rows, -1 where a key is not held.

        Returns:
            The number of evicted entries.
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
        self._note_evicted(evicted, OVERFLOW)
        return excess

    def evict_stale(self) -> int:
        """Evict the entries that sat unused for more than `max_idle_steps`, and return how many."""
        if self.max_idle_steps is None:
            return 0
        is_stale = self._last_used_step < self._interval.step - self.max_idle_steps
        if not bool(is_stale.any()):
            return 0
        rows = self._entries.in_order()
        stale = rows[is_stale[rows]]
        evicted = self._entries.keys[stale]
        self._drop(stale)
        self._note_evicted(evicted, STALE)
        return len(stale)

    def _note_evicted(self, keys: torch.Tensor, why: str) -> None:
        self.recently_evicted.add(keys)
        if self._interval.events is not None:
            self._interval.emit("evict", keys.tolist(), why=why)

    def end_step(self, step: int) -> None:
        """Move the clock to the step that ends, and evict the entries that sat unused for too long.

        Steps may be given with a stride, and a job may begin at any of them: what was used since the last step that
        ended was used in the one that ends now.
        """
        interval = self._interval
        if step != interval.step:
            self._last_used_step.masked_fill_(self._last_used_step == interval.step, step)
        interval.step = step
        interval.counts.stale_evictions += self.evict_stale()

    def _drop(self, rows: torch.Tensor) -> None:
        self._entries.remove(rows)
        self._last_used_step[rows] = _NEVER

    def clear(self) -> None:
        """Drop every entry, and clear the ring of evicted keys."""
        self._entries.clear()
        self._last_used_step.fill_(_NEVER)
        self.recently_evicted.clear()

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the entries in the order of use, the ring of evicted keys, the counts and the clock."""
        rows = self._entries.in_order()
        return {
            "step": self._interval.step,
            "keys": self._entries.keys[rows],
            "states": self._slab[rows.to(self.device)],
            "last_used_step": self._last_used_step[rows],
            "recently_evicted": self.recently_evicted.in_order(),
            "interval": self._interval.counts.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that has been checked; entries that find no room are evicted, the oldest first."""
        surplus = max(0, len(state["keys"]) - self.capacity)
        counts = Counts.from_state_dict(state["interval"])
        self.clear()
        self._interval.counts = counts
        self._interval.step = int(state["step"])
        rows = self._entries.add(state["keys"][surplus:].cpu())
        self._slab[rows.to(self.device)] = state["states"][surplus:].to(self.device)
        self._last_used_step[rows] = state["last_used_step"][surplus:].cpu()
        self.recently_evicted.add(state["recently_evicted"].cpu())
        if surplus:
            self._interval.counts.evictions += surplus
            self._note_evicted(state["keys"][:surplus].cpu(), OVERFLOW)


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, str | bytes) or not isinstance(shape, Iterable):
        raise ConfigurationError(
            f"state_shape must be a sequence of whole numbers, got {shape!r:.{MAX_SHOWN}}; (64,) is a vector of 64"
        )
    return tuple(whole_number(f"state_shape[{at}]", size, least=1) for at, size in enumerate(shape))


def describe(dtype: torch.dtype, shape: Sequence[int]) -> str:
    """Return a dtype and a shape as error messages have them."""
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"
