"""The ledger: a state tensor for each stream, sharded over the ranks by owner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist

from otel_train.arguments import MAX_SHOWN, reading_state
from otel_train.catalogue import LEDGER, Metric, Phase
from otel_train.event_sink import EventSink
from otel_train.exceptions import ShapeMismatchError, StateMismatchError
from otel_train.ledger.byte_buffer import ByteBuffer
from otel_train.ledger.cache_interval import CacheInterval, by_wandb_key
from otel_train.ledger.evicted import EvictedKeys
from otel_train.ledger.exchange import Exchange
from otel_train.ledger.hashing import SeenIds, StreamIds
from otel_train.ledger.int_buffer import IntBuffer
from otel_train.ledger.resharding import OWNER, check_complete, check_distinct, check_form, checked_states, merge
from otel_train.ledger.routing import Route
from otel_train.ledger.shard import Fetched, Shard, describe
from otel_train.torch_modes import has_no_data, outside_modes, plain_tensor
from otel_train.untraced import untraced


class _Call:
    """A fetch or a store: a step mostly stores what it has fetched, and then its keys need not travel again."""

    def __init__(self, name: str, world_size: int) -> None:
        self.name = name
        """Name of the call, which is the same on all ranks."""
        self.route = Route(world_size)
        """This rank's keys, and their route."""
        self.asked = IntBuffer()
        """Keys that all ranks send to this one."""


@untraced
class StateLedger:
    """A state tensor for each stream id, on the rank that owns it: `stable_hash(id)`, unsigned, modulo the world size.

    `fetch` and `store` are collectives: every rank of the group makes the same calls in the same order, each with any
    number of ids, none included. Arguments that are wrong on one rank raise on all of them before any state is sent.
    Each rank holds at most `capacity` entries and evicts the least recently used; a fetch and a store are uses. The
    rest (`wipe`, the drains, the saved state) is each rank's own. Not thread-safe.

    Examples:
        >>> import otel_train, torch
        >>> ledger = otel_train.StateLedger([4], capacity=1024)
        >>> ledger.store(["doc-17"], torch.ones(1, 4))
        >>> states, found = ledger.fetch(["doc-17", "doc-3"])
        >>> states[0], found
        (tensor([1., 1., 1., 1.]), tensor([ True, False]))

    Args:
        state_shape: Shape of one state.
        capacity: Entries that each rank holds, in a slab that is made at once.
        dtype: Dtype of the states.
        device: Device of this rank's states; keys and their order stay on the CPU.
        process_group: The ranks that share the ledger; None for all of torch.distributed, or one rank without it.
        max_idle_steps: Steps after which an unused entry is dropped; None for never.
        recently_evicted: Keys of evicted entries that are remembered; as many as the capacity by default.
        step: The step that is being assembled.
        events: Takes an event for each thing that happens on this rank; None (the default) costs nothing.

    Raises:
        ConfigurationError: An argument breaks a rule; the message names it.
    """

    metrics: ClassVar[tuple[Metric, ...]] = LEDGER
    modalities: ClassVar[tuple[str, ...]] = ()

    @outside_modes
    def __init__(
        self,
        state_shape: Sequence[int],
        *,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        process_group: dist.ProcessGroup | None = None,
        max_idle_steps: int | None = None,
        recently_evicted: int | None = None,
        step: int = 1,
        events: EventSink | None = None,
    ) -> None:
        self._interval = CacheInterval(capacity, recently_evicted, step, events)
        self._shard = Shard(self._interval, state_shape, dtype=dtype, device=device, max_idle_steps=max_idle_steps)
        self.capacity = self._interval.capacity
        """Entries that each rank holds."""
        self.state_shape = self._shard.state_shape
        """Shape of one state."""
        self.dtype = self._shard.dtype
        """Dtype of the states."""
        self.device = self._shard.device
        """Device of the states, with its index."""
        self.max_idle_steps = max_idle_steps
        """Steps after which an unused entry is dropped; None for never."""
        self._exchange = Exchange(process_group, self.device)
        self._width = math.prod(self.state_shape)
        form = describe(self.dtype, self.state_shape)
        self._seen = SeenIds()
        self._outgoing = ByteBuffer()
        self._fetch_call, self._store_call = (
            _Call(f"{name} of {form}", self._exchange.world_size) for name in ("fetch", "store")
        )
        self._fetched = False
        """Whether the last fetch got to its end."""
        self._enter: Callable[[Phase], None] = lambda _: None

    def __len__(self) -> int:
        return len(self._shard)

    def watch(self, enter: Callable[[Phase], None]) -> None:
        """Have `enter` called with `Phase.LEDGER` when an exchange begins and `Phase.COMPUTE` when it ends.

        One rank alone waits for nobody, and calls nothing.
        """
        if self._exchange.world_size > 1:
            self._enter = enter

    @outside_modes
    def fetch(self, stream_ids: StreamIds) -> Fetched:
        """Return the states of streams, from whichever ranks own them; a collective.

        Within one call the order of use is by rank, then by position.

        Args:
            stream_ids: n strings and integers, or an int64 tensor [n]; duplicates are fine, and n may be 0.

        Returns:
            `states` [n, *state_shape], in the order of the ids and zero where there is no entry, and `found`, bool [n],
            both on the ledger's device and the caller's to change.

        Raises:
            ShapeMismatchError: On every rank, when a rank's ids are not such, or its call or ledger is another one.
        """
        self._enter(Phase.LEDGER)
        try:
            return self._fetch(stream_ids)
        finally:
            self._enter(Phase.COMPUTE)

    def _fetch(self, stream_ids: StreamIds) -> Fetched:
        self._fetched = False
        call, route, exchange = self._fetch_call, self._fetch_call.route, self._exchange
        problem = self._read_ids(stream_ids, route.keys)
        if exchange.world_size == 1:
            exchange.check_alone(problem)
            return self._shard.fetch(route.keys)
        route.plan()
        receives, _ = exchange.agree(route.sends, call.name, problem)
        call.asked.fill(exchange.swap(route.sent.tensor, route.sends, receives))
        # States and flags travel as bytes in one exchange, so every dtype does, on every backend.
        into = self._outgoing.rows(call.asked.count, self._shard.row_bytes, self.device)
        answer = exchange.swap(self._shard.fetch_rows(call.asked, into), receives, route.sends)
        self._fetched = True
        return self._shard.split_rows(answer, route.inverse.tensor.to(self.device))

    @outside_modes
    def store(self, stream_ids: StreamIds, states: torch.Tensor) -> None:
        """Write the states of streams to the ranks that own them; a collective.

        Of several writes of one id in one call the last counts, by rank and then by position, also for
        the order of use. All ids of the call are used first, then each owner evicts what overflows.

        Args:
            stream_ids: n strings and integers, or an int64 tensor [n]; n may be 0.
            states: [n, *state_shape] with the ledger's dtype and device; copied, without its gradient.

        Raises:
            ShapeMismatchError: On every rank, when a rank's ids or states are not such, or its call or ledger is
                another one.
        """
        self._enter(Phase.LEDGER)
        try:
            self._store(stream_ids, states)
        finally:
            self._enter(Phase.COMPUTE)

    def _store(self, stream_ids: StreamIds, states: torch.Tensor) -> None:
        before, call, exchange = self._fetch_call, self._store_call, self._exchange
        keys = call.route.keys
        states = plain_tensor(states) if isinstance(states, torch.Tensor) else states
        problem = self._read_ids(stream_ids, keys) or self._check_states(states, keys.count)
        if exchange.world_size == 1:
            exchange.check_alone(problem)
            self._shard.store(keys, states.detach())
            return
        repeated = self._fetched and call.route.has_keys_of(before.route)
        route = before.route if repeated else call.route
        if not repeated:
            route.plan()
        receives, all_repeated = exchange.agree(route.sends, call.name, problem, repeated=repeated)
        if all_repeated:
            asked = before.asked
        else:
            asked = call.asked
            asked.fill(exchange.swap(route.sent.tensor, route.sends, receives))
        sent = self._outgoing.rows(keys.count, self._width * self.dtype.itemsize, self.device)
        rows = sent.view(self.dtype).view(keys.count, *self.state_shape)
        torch.index_select(states.detach(), 0, route.order.tensor.to(self.device), out=rows)
        content = exchange.swap(sent, route.sends, receives)
        self._shard.store(asked, content.view(self.dtype).view(asked.count, *self.state_shape))

    def _read_ids(self, stream_ids: StreamIds, keys: IntBuffer) -> str:
        """Write the keys, or none and return the problem: raised here, the others would wait for this rank."""
        try:
            self._seen.write_keys(stream_ids, keys)
        except ShapeMismatchError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001  # whatever a sequence of the user's own raises, as above
            problem = f"stream_ids can't be read: {type(error).__name__}: {error!s:.{MAX_SHOWN}}; use a list"
        else:
            return ""
        keys.resize(0)
        return problem

    def _check_states(self, states: torch.Tensor, count: int) -> str:
        if self._are_plain(states, count):
            return ""
        expected = f"{describe(self.dtype, (count, *self.state_shape))} on {self.device}"
        if not isinstance(states, torch.Tensor):
            return f"states must be a tensor, {expected}, got {type(states).__name__}"
        if has_no_data(states):
            return f"states must be a plain tensor, {expected}, got {type(states).__name__}; a DTensor has to_local()"
        try:
            got = f"{describe(states.dtype, states.shape)} on {states.device}"
        except Exception as error:  # noqa: BLE001  # a nested tensor has no shape; the other ranks must hear of it
            return f"states must be {expected}, got a tensor without a shape ({error!s:.{MAX_SHOWN}})"
        if got == expected and states.layout != torch.strided:
            return f"states must be a dense tensor, {expected}, got the layout {states.layout}; call to_dense()"
        return "" if got == expected else f"states must be {expected}, got {got}"

    def _are_plain(self, states: object, count: int) -> bool:
        """Tell whether states are a tensor as it should be; where they aren't, there is time to say why."""
        if type(states) is not torch.Tensor or states.layout is not torch.strided or states.is_nested:
            return False
        return (
            states.dtype is self.dtype and states.device == self.device and states.shape == (count, *self.state_shape)
        )

    def wipe(self) -> None:
        """Drop every entry of this rank and clear the ring of evicted keys; the interval's counts stay.

        Entries wiped on purpose are not evictions, and their return is not a false one.
        """
        self._shard.clear()
        self._interval.emit_wipe()

    # -- a source of telemetry -----------------------------------------------------------------------------------

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
        """Configuration, for people who look at a ring; no `max_idle_steps` where there is no such rule."""
        idle = {} if self.max_idle_steps is None else {"ledger.max_idle_steps": self.max_idle_steps}
        return {**self._interval.facts, **idle, "ledger.entry_bytes": self._width * self.dtype.itemsize}

    @property
    def needs_clock(self) -> bool:
        """Whether `end_step` does anything: only then does a session call it that is off."""
        return self.max_idle_steps is not None

    @outside_modes
    def end_step(self, step: int) -> None:
        """Note the end of a step that is not a log step: what comes now belongs to the next one.

        Args:
            step: The step that ends.
        """
        self._shard.end_step(step)
        self._interval.step = step + 1

    @outside_modes
    def drain_measurements(self, step: int | None = None) -> list[float]:
        """End the interval with `step` and return its measurements, flat.

        Args:
            step: The step that ends; by default the one after the last that ended.

        Returns:
            float [sums] in the order of `Layout(LEDGER)`; a ledger gives no peaks of its own.
        """
        step = self._interval.step if step is None else step
        self._shard.end_step(step)
        return self._interval.drain(step, len(self))

    def drain_step_metrics(self, step: int | None = None) -> dict[str, float]:
        """End the interval with `step` and return this rank's own values, by wandb key.

        Args:
            step: The step that ends; by default the one after the last that ended.

        Returns:
            Counters, their maxima (over this one rank) and the fill; the reuse distance has no wandb key.
        """
        return by_wandb_key(self.drain_measurements(step))

    # -- names that the outside relies on ------------------------------------------------------------------------

    @property
    def _recently_evicted(self) -> EvictedKeys:
        return self._shard.recently_evicted

    def _store_state(self, keys: torch.Tensor, states: torch.Tensor) -> None:
        buffer = IntBuffer()
        buffer.fill(keys)
        self._shard.store(buffer, states)

    def _evict_lru_overflow(self) -> int:
        return self._shard.evict_lru_overflow()

    def _evict_stale(self) -> int:
        return self._shard.evict_stale()

    # -- state ---------------------------------------------------------------------------------------------------

    @outside_modes
    def state_dict(self) -> dict[str, Any]:
        """Return what this rank must save: its entries in the order of use, the ring of evicted keys and the clock."""
        return {
            "world_size": self._exchange.world_size,
            "rank": self._exchange.rank,
            **self._shard.state_dict(),
        }

    @outside_modes
    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Go on from what `state_dict` returned.

        Capacity, `max_idle_steps` and the ranks are this ledger's. Entries that it has no room for are evicted, the
        least recently used first: counted in the interval that goes on, and remembered as every evicted key is.

        Args:
            state: This rank's saved state, or those of all ranks in order, as a job of another world size needs: each
                rank then keeps what it owns.

        Raises:
            StateMismatchError: It is another rank's state, one of another class or version, one of many is missing, or
                the states have another shape or dtype. Nothing is changed then.
        """
        rank, world_size = self._exchange.rank, self._exchange.world_size
        with reading_state(OWNER):
            many = isinstance(state, list | tuple)
            states = checked_states(state)
            if many:
                check_complete(states)
            elif (states[0]["rank"], states[0]["world_size"]) != (rank, world_size):
                raise StateMismatchError(
                    f"this is rank {rank} of {world_size}, the saved ledger is that of rank {states[0]['rank']} of "
                    f"{states[0]['world_size']}; load the list of all {states[0]['world_size']} ranks' states"
                )
            for one in states:
                check_form(one, self.dtype, self.state_shape)
            if not many:
                own = states[0]
            else:
                own = states[rank] if len(states) == world_size else merge(states, rank, world_size)
            check_distinct(own)
        self._shard.load_state_dict(own)
