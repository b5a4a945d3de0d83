"""One rank's part of the ledger: the slab of states, the order of use, the evictions and their counts."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from otel_train.arguments import MAX_SHOWN, whole_number
from otel_train.catalogue import REUSE_BOUNDS
from otel_train.exceptions import ConfigurationError
from otel_train.ledger.cache_interval import OVERFLOW, STALE, CacheInterval, Counts
from otel_train.ledger.evicted import EvictedKeys
from otel_train.ledger.int_buffer import IntBuffer, tensor_of
from otel_train.ledger.key_table import BUCKETS, EVICTIONS, FALSE_EVICTIONS, FRESH, REUSE_SUM, TABLE, KeyTable

_WIDEST = 16
"""Bytes of the widest number that torch has, complex128."""
_BOUNDS = tuple(int(bound) for bound in REUSE_BOUNDS)


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
        table: Class of the table of keys.

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
        table: type[KeyTable] = TABLE,
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
        self._width = math.prod(self.state_shape)
        width, size = self._width, dtype.itemsize
        # The flag that a state is there travels in its last byte, and the last row is that of a state that is not: so a
        # reply is one gather. Rows begin at multiples of 16 bytes.
        self.row_bytes = (width * size + _WIDEST) // _WIDEST * _WIDEST
        """Bytes of a row of `fetch_rows`."""
        self._slab = torch.zeros(self.capacity + 1, self.row_bytes // size, dtype=dtype, device=device)
        self._slab.view(torch.uint8)[: self.capacity, -1] = 1
        self._lay_out(table)
        self._sources, self._rows, self._evicted = IntBuffer(), IntBuffer(), IntBuffer()
        self._report = array("q", bytes(8 * (BUCKETS + len(_BOUNDS) + 1)))

    def _lay_out(self, table: type[KeyTable]) -> None:
        """Make a new table, and the views of the slab."""
        self._states = self._slab[:, : self._width].view(-1, *self.state_shape)
        word = _word_of(self._width * self.dtype.itemsize, self.dtype, self.device)
        self._words = self._slab.view(word)[:, : self._width * self.dtype.itemsize // word.itemsize]
        remembered = self._interval.recently_evicted
        self._table = table(self.capacity, remembered, _BOUNDS)
        self.recently_evicted = EvictedKeys(self._table, remembered)
        """The ring of evicted keys."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what a deep copy is made of: a table of the core can't be copied, and views would lose their slab."""
        made = {"_states", "_words", "_table", "recently_evicted"}
        kept = {name: value for name, value in vars(self).items() if name not in made}
        return {**kept, "table": type(self._table), "entries": self._table.entries(), "ring": self._table.ring()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what a deep copy is made of."""
        table, entries, ring = state.pop("table"), state.pop("entries"), array("q", bytes(state.pop("ring")))
        vars(self).update(state)
        self._lay_out(table)
        keys, _, steps = (array("q", bytes(part)) for part in entries)
        self._table.restore(keys, steps, len(keys), self._rows.resize(len(keys)))
        self._write(
            self._rows.tensor.to(self.device), self._states.index_select(0, tensor_of(entries[1]).to(self.device))
        )
        self._table.remember(ring, len(ring))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the states."""
        return self._slab.dtype

    @property
    def device(self) -> torch.device:
        """Device of the states, with its index."""
        return self._slab.device

    def __len__(self) -> int:
        return len(self._table)

    # -- use -----------------------------------------------------------------------------------------------------

    def fetch(self, keys: IntBuffer) -> Fetched:
        """Return the states of keys of this shard; a use of those that are held.

        Args:
            keys: n keys, duplicates too; the order of use is that of their last occurrences.

        Returns:
            States and whether they are there, in the order of the keys.
        """
        rows = self._find(keys)
        return Fetched(self._states.index_select(0, rows), rows.ne(self.capacity))

    def fetch_rows(self, keys: IntBuffer, into: torch.Tensor) -> torch.Tensor:
        """Do as `fetch`, and return bytes to send.

        Args:
            keys: n keys, as above.
            into: uint8 [n, `row_bytes`] on the device; receives them.

        Returns:
            `into`: in each row a state and, in the last byte, 1 where the state is there.
        """
        torch.index_select(self._slab, 0, self._find(keys), out=into.view(self.dtype))
        return into

    def split_rows(self, rows: torch.Tensor, order: torch.Tensor) -> Fetched:
        """Return what `fetch_rows` of any ranks gave, uint8 [n, `row_bytes`], in the order of these indices."""
        states = rows.view(self.dtype)[:, : self._width].index_select(0, order)
        return Fetched(states.view(-1, *self.state_shape), rows[:, -1].index_select(0, order).view(torch.bool))

    def _find(self, keys: IntBuffer) -> torch.Tensor:
        """Return the rows of keys, int64 [n] on the device, and count the hits."""
        rows = self._rows.resize(keys.count)
        interval = self._interval
        interval.counts.hits += self._table.fetch(keys.numbers, keys.count, rows, interval.step)
        return self._rows.tensor.to(self.device)

    def store(self, keys: IntBuffer, states: torch.Tensor) -> None:
        """Write the states of keys of this shard: all are used in their order, then the overflow is evicted.

        A key that is not held is a fresh write, and a false eviction where it was evicted a short while ago. Of more
        keys than the slab has rows, the first ones never take a row: they are evicted as they come.

        Args:
            keys: n keys; of several writes of one the last counts.
            states: [n, *state_shape], with the slab's dtype and device.
        """
        distinct = self._use(keys)
        first = max(0, distinct - self.capacity)
        if first == 0 and distinct == keys.count:
            rows = self._rows.tensor.to(self.device)
        else:
            rows = self._rows.part(first, distinct).to(self.device)
            states = states.index_select(0, self._sources.part(first, distinct).to(self.device))
        self._write(rows, states)

    def _write(self, rows: torch.Tensor, states: torch.Tensor) -> None:
        is_aligned = states.storage_offset() * self.dtype.itemsize % _WIDEST == 0
        if not (states.is_contiguous() and is_aligned) or states.is_conj() or states.is_neg():
            states = states.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
        words = states.view(len(states), self._width).view(self._words.dtype)
        self._words.index_copy_(0, rows, words)

    def _use(self, keys: IntBuffer) -> int:
        """Have the table store keys, count what it did, and return the number of distinct ones."""
        count, interval, report = keys.count, self._interval, self._report
        sources, rows, evicted = (buffer.resize(count) for buffer in (self._sources, self._rows, self._evicted))
        distinct = self._table.store(keys.numbers, count, sources, rows, evicted, interval.step, report)
        if interval.events is not None:
            interval.emit("store", [keys.numbers[index] for index in sources[:distinct]])
            interval.emit("evict", evicted[: report[EVICTIONS]], why=OVERFLOW)
        if report[FRESH]:
            interval.counts.fresh_writes += report[FRESH]
            interval.counts.evictions += report[EVICTIONS]
        if report[FALSE_EVICTIONS]:
            interval.counts.add_false(report[BUCKETS:], report[REUSE_SUM])
        return distinct

    # -- evictions -----------------------------------------------------------------------------------------------

    def evict_lru_overflow(self) -> int:
        """Evict the least recently used entries beyond the capacity, and return how many: a store leaves none."""
        self._use(IntBuffer())
        return self._report[EVICTIONS]

    def evict_stale(self) -> int:
        """Evict the entries that sat unused for more than `max_idle_steps`, and return how many."""
        if self.max_idle_steps is None:
            return 0
        stale = array("q", bytes(self._table.evict_stale(max(-(2**63), self._interval.step - self.max_idle_steps))))
        self._interval.emit("evict", stale, why=STALE)
        return len(stale)

    def end_step(self, step: int) -> None:
        """Move the clock to the step that ends, and evict the entries that sat unused for too long.

        Steps may be given with a stride, and a job may begin at any of them: what was used since the last step that
        ended was used in the one that ends now.
        """
        interval = self._interval
        if step != interval.step:
            self._table.move_step(interval.step, step)
        interval.step = step
        interval.counts.stale_evictions += self.evict_stale()

    def clear(self) -> None:
        """Drop every entry, and clear the ring of evicted keys."""
        self._table.clear()

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the entries in the order of use, the ring of evicted keys, the counts and the clock."""
        keys, rows, steps = map(tensor_of, self._table.entries())
        return {
            "step": self._interval.step,
            "keys": keys,
            "states": self._states.index_select(0, rows.to(self.device)),
            "last_used_step": steps,
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
        keys, steps, ring = IntBuffer(), IntBuffer(), IntBuffer()
        keys.fill(state["keys"])
        steps.fill(state["last_used_step"])
        ring.fill(state["recently_evicted"])
        kept = keys.count - surplus
        rows = self._rows.resize(kept)
        self._table.restore(keys.numbers[surplus:], steps.numbers[surplus:], kept, rows)
        self._write(self._rows.tensor.to(self.device), state["states"][surplus:].to(self.device))
        self._table.remember(ring.numbers, ring.count)
        if surplus:
            self._interval.counts.evictions += surplus
            self._table.remember(keys.numbers, surplus)
            self._interval.emit("evict", keys.numbers[:surplus], why=OVERFLOW)


def _word_of(state_bytes: int, dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype as which states are written, bits as they are: torch writes no float8 and no uint16.

    On the CPU a row is copied word by word: the wider these are, the faster (a third of the time for float32).
    """
    words = (torch.complex128, torch.float64, torch.int32, torch.int16, torch.uint8)
    if device.type != "cpu":
        words, state_bytes = (torch.complex128, torch.int64, *words[2:]), dtype.itemsize
    return next(word for word in words if state_bytes % word.itemsize == 0)


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, str | bytes) or not isinstance(shape, Iterable):
        raise ConfigurationError(
            f"state_shape must be a sequence of whole numbers, got {shape!r:.{MAX_SHOWN}}; (64,) is a vector of 64"
        )
    return tuple(whole_number(f"state_shape[{at}]", size, least=1) for at, size in enumerate(shape))


def describe(dtype: torch.dtype, shape: Sequence[int]) -> str:
    """Return a dtype and a shape as error messages have them."""
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"
