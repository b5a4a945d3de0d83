"""The mixing dataset: rows of many streams, picked by weight, measured at the pick site, resumable at any step."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

from otel_train.catalogue import MIXING, Metric
from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.mixing.batch import READERS, MixedBatch
from otel_train.mixing.dealing import Place, apportion_slots, deal, merge_places, shuffled
from otel_train.mixing.meter import EventSink, MixingMeter
from otel_train.mixing.plan import AtEnd, MixPlan, Pick
from otel_train.mixing.progress import WorkerProgress
from otel_train.mixing.streams import Stream
from otel_train.mixing.weights import Weights, checked_weights

logger = logging.getLogger(__name__)


class StreamMixingDataset(IterableDataset[MixedBatch]):
    """Rows from K reader slots of this rank, each playing one stream of its modality at a time.

    Works alone, and under `torch.utils.data.DataLoader` with any number of workers. The workers don't split the
    streams: each plans all picks of the rank and reads the rows of its own batches, so the batches are the same for any
    number of workers. The pick of a row that a worker made is counted when the training loop first reads the batch
    (see `MixedBatch`); with a `collate_fn` that does not keep the mapping, hand its "pick" and "length" to `consume`.

    A row has the stream's own values and "stream", "modality", "slot", "position" (the row of the stream), "pick" (the
    running number of the rank's pick) and "length" (tokens).

    Args:
        streams: All streams of the job, the same on each rank.
        weights: Weight by modality, or a function of the step.
        readers: Number of slots, K; needed unless `slots` is given.
        slots: The modality of each slot; by default each modality gets one and the others go by weight.
        reader_bias: A factor for each slot; readers of one modality share its weight in proportion to it.
        batch_size: Rows that the DataLoader puts into a batch.
        rows_per_step: Rows that this rank consumes in a step, which the weights go by; `batch_size` by default.
        at_end: What a slot does when its stream runs out.
        seed: Decides the order of the streams and the choice of readers.
        horizon: Picks of this rank over which the mix divergence is taken.
        rank: This rank; torch.distributed's by default, 0 without it.
        world_size: Number of ranks that share the streams; torch.distributed's by default, 1 without it.
        events: Takes an event for each thing that happens.

    Raises:
        ConfigurationError: An argument breaks a rule; the message names it.
    """

    metrics: tuple[Metric, ...] = MIXING

    def __init__(
        self,
        streams: Iterable[Stream],
        weights: Weights,
        *,
        readers: int | None = None,
        slots: Sequence[str] | None = None,
        reader_bias: Sequence[float] | None = None,
        batch_size: int = 1,
        rows_per_step: int | None = None,
        at_end: AtEnd | str = AtEnd.CYCLE,
        seed: int = 0,
        horizon: float = 4096,
        rank: int | None = None,
        world_size: int | None = None,
        events: EventSink | None = None,
    ) -> None:
        super().__init__()
        given = list(streams)
        self._streams = {stream.id: stream for stream in given}
        _check_streams(given)
        self.modalities = tuple(sorted({stream.modality for stream in given}))
        self._weights = weights
        self.rank, self.world_size = _rank_and_world(rank, world_size)
        self.batch_size = _positive("batch_size", batch_size)
        self.rows_per_step = _positive("rows_per_step", batch_size if rows_per_step is None else rows_per_step)
        self.seed = seed
        self.slots = self._slots(readers, slots)
        bias = tuple(reader_bias) if reader_bias is not None else (1.0,) * len(self.slots)
        if len(bias) != len(self.slots) or not all(factor >= 0 for factor in bias):
            raise ConfigurationError(
                f"mixing.reader_bias must be {len(self.slots)} numbers that are not negative, one a slot, got {bias}"
            )
        try:
            end = AtEnd(at_end)
        except ValueError:
            raise ConfigurationError(f"mixing.at_end must be one of {', '.join(AtEnd)}, got {at_end!r}") from None
        self._plan = self._new_plan(bias, end)
        self.meter = MixingMeter(len(self.slots), self.modalities, self._weights_at(1), horizon=horizon, events=events)
        self._plan.fill(self._dealt(self._unread(self._streams), self.rank))
        self._open_slots()
        self._progress = WorkerProgress()
        self._times_begun = 0
        self._warned = False
        self._token = uuid.uuid4().hex
        READERS[self._token] = self

    # -- set-up --------------------------------------------------------------------------------------------------

    def _slots(self, readers: int | None, slots: Sequence[str] | None) -> tuple[str, ...]:
        if slots is None:
            if readers is None:
                raise ConfigurationError("mixing.readers must be given (the number of slots), or mixing.slots")
            return apportion_slots(readers, self._weights_at(1))
        if not slots:
            raise ConfigurationError("mixing.slots must name the modality of at least one slot, got none")
        for modality in slots:
            if modality not in self.modalities:
                raise ConfigurationError(
                    f"mixing.slots names the modality {modality!r}, which no stream has; "
                    f"known: {', '.join(self.modalities)}"
                )
        if readers not in (None, len(slots)):
            raise ConfigurationError(f"mixing.readers is {readers}, but mixing.slots names {len(slots)}; leave one out")
        return tuple(slots)

    def _new_plan(self, bias: Sequence[float], at_end: AtEnd) -> MixPlan:
        plan = MixPlan(
            {stream.id: len(stream) for stream in self._streams.values()},
            {stream.id: stream.modality for stream in self._streams.values()},
            self.slots,
            bias,
            seed=self.seed,
            rank=self.rank,
            at_end=at_end,
        )
        plan.set_weights(self._weights_at(1))
        return plan

    def _weights_at(self, step: int) -> dict[str, float]:
        weights = self._weights(step) if callable(self._weights) else self._weights
        return checked_weights(weights, self.modalities)

    def _unread(self, streams: Iterable[str]) -> list[Place]:
        return [Place(stream) for stream in shuffled(streams, self.seed)]

    def _dealt(self, places: Sequence[Place], rank: int) -> list[Place]:
        dealt: list[Place] = []
        for first, modality in enumerate(self.modalities):
            of_modality = [place for place in places if self._streams[place.stream].modality == modality]
            dealt += deal(of_modality, rank, self.world_size, first)
        return dealt

    def _open_slots(self) -> None:
        for slot, entry in enumerate(self._plan.playing):
            if entry is not None:
                self.meter.open(slot, self.slots[slot], entry[0])

    # -- reading -------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[MixedBatch]:
        """Yield rows, from where the training loop is."""
        worker = get_worker_info()
        if worker is None:
            return self._rows_counted_here()
        return self._rows_of_worker(worker.id, worker.num_workers)

    def _rows_counted_here(self) -> Iterator[MixedBatch]:
        while (pick := self._next_pick(self._plan, self.meter)) is not None:
            values, tokens = self._read(pick)
            self._count(pick, tokens)
            yield MixedBatch(values)

    def _rows_of_worker(self, worker: int, workers: int) -> Iterator[MixedBatch]:
        self._times_begun += 1
        if self._times_begun > 1:
            # A persistent worker begins again: what it had read ahead is thrown away.
            while self._plan.index < self._progress.consumed:
                self._next_pick(self._plan)
        self._progress.begin(worker, workers, self._times_begun)
        plan = self._new_plan(self._plan.bias, self._plan.at_end)
        plan.load_state_dict(self._plan.state_dict())
        plan.set_weights(self._weights_at(self._step_of(plan.index)))
        start = plan.index
        while (pick := self._next_pick(plan)) is not None:
            if (pick.index - start) // self.batch_size % workers == worker:
                values, _ = self._read(pick)
                self._progress.read(pick.index + 1)
                yield MixedBatch(values, self._token)

    def _step_of(self, index: int) -> int:
        return index // self.rows_per_step + 1

    def _next_pick(self, plan: MixPlan, meter: MixingMeter | None = None) -> Pick | None:
        if callable(self._weights) and plan.index % self.rows_per_step == 0:
            weights = self._weights_at(self._step_of(plan.index))
            plan.set_weights(weights)
            if meter is not None:
                meter.set_weights(weights)
        return plan.next()

    def _read(self, pick: Pick) -> tuple[dict[str, Any], int]:
        stream = self._streams[pick.stream]
        try:
            values, tokens = stream.read(pick.position)
        except Exception as error:
            error.add_note(f"while reading row {pick.position} of stream {pick.stream!r} in slot {pick.slot}")
            raise
        return {
            **values,
            "stream": pick.stream,
            "modality": stream.modality,
            "slot": pick.slot,
            "position": pick.position,
            "pick": pick.index,
            "length": tokens,
        }, tokens

    def _count(self, pick: Pick, tokens: int) -> None:
        self.meter.log_pick(pick.slot, pick.stream, tokens)
        if pick.successor is not None:
            self.meter.restart(pick.slot, stream=pick.successor)
        elif pick.ends:
            self.meter.close(pick.slot, pick.stream)
        self._progress.consume(self._plan.index)

    def consume(self, batch: Mapping[str, Any]) -> None:
        """Count the picks of a batch that a worker process made, in the step that is being made.

        Called by `MixedBatch`; call it yourself where a `collate_fn` of your own makes something else of the rows.

        Args:
            batch: "pick" and "length", each an int or an int64 tensor [rows].

        Raises:
            ConfigurationError: The picks are not the next ones: the DataLoader's batch size is not this dataset's, or a
                batch was left out.
        """
        self._progress.await_workers()
        picks = torch.as_tensor(batch["pick"]).reshape(-1).tolist()
        lengths = torch.as_tensor(batch["length"]).reshape(-1).tolist()
        first = self._plan.index
        if picks != list(range(first, first + len(picks))):
            raise ConfigurationError(
                f"the batch holds picks {picks[0]} to {picks[-1]}, the next one is {first}: give the DataLoader the "
                f"dataset's batch_size ({self.batch_size}) and read every batch, in order"
            )
        for tokens in lengths:
            pick = self._next_pick(self._plan, self.meter)
            assert pick is not None, "a worker made this pick from the same plan"
            self._count(pick, tokens)

    # -- a source of telemetry -----------------------------------------------------------------------------------

    @property
    def facts(self) -> dict[str, str | float]:
        """How it is set up, for people who look at a ring."""
        return {
            **self.meter.facts,
            "mixing.batch_size": self.batch_size,
            "mixing.rows_per_step": self.rows_per_step,
            "mixing.streams": len(self._streams),
            "mixing.seed": self.seed,
        }

    @property
    def _last_picked_step(self) -> list[int]:
        return self.meter._last_picked_step  # noqa: SLF001  # a name that the outside relies on, kept in one place

    @property
    def _modality_for_reader(self) -> list[str | None]:
        return self.meter._modality_for_reader  # noqa: SLF001  # as above

    def end_step(self, step: int) -> None:
        """Note the end of a step that is no log step."""
        self.meter.end_step(step)

    def drain_measurements(self, step: int | None = None) -> list[float]:
        """End the interval with `step`; see `MixingMeter.drain_measurements`."""
        self._say_lost_picks()
        return self.meter.drain_measurements(step)

    def drain_step_metrics(self, step: int | None = None) -> dict[str, float]:
        """End the interval with `step` and return this rank's own values, by wandb key."""
        self._say_lost_picks()
        return self.meter.drain_step_metrics(step)

    def _say_lost_picks(self) -> None:
        if not self._warned and self._plan.index == 0 and self._progress.produced:
            self._warned = True
            logger.warning(
                "DataLoader workers have made %d picks and none was counted: a collate_fn that keeps no mapping must "
                "hand the rows' 'pick' and 'length' to StreamMixingDataset.consume()",
                self._progress.produced,
            )

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return this rank's place in every stream it holds, as the training loop has consumed them."""
        return {
            "world_size": self.world_size,
            "rank": self.rank,
            "plan": self._plan.state_dict(),
            "meter": self.meter.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Go on from saved state: this rank's own, or that of all ranks of the saved job.

        With the states of a job of another world size the streams are dealt out again: none twice, none lost, each
        goes on at its place, those that were playing first. Rank 0 says so in one INFO line.

        Raises:
            StateMismatchError: The state does not fit this job; the message says how.
        """
        states = [state] if isinstance(state, Mapping) else list(state)
        own = [each for each in states if (each["world_size"], each["rank"]) == (self.world_size, self.rank)]
        if own:
            self._check_known(_held(own[0]))
            self._plan.load_state_dict(own[0]["plan"])
            self.meter.load_state_dict(own[0]["meter"])
        else:
            self._reshard(states)
        self._progress.restart(self._plan.index)
        weights = self._weights_at(self._step_of(self._plan.index))
        self._plan.set_weights(weights)
        self.meter.set_weights(weights)

    def _reshard(self, states: Sequence[Mapping[str, Any]]) -> None:
        if not states:
            raise StateMismatchError("the list of states is empty; give one of each rank of the saved job")
        places, owners, finished = merge_places(states)
        self._check_known([*owners, *finished])
        places += self._unread(self._streams.keys() - owners.keys() - finished)
        dealt = {rank: {place.stream for place in self._dealt(places, rank)} for rank in range(self.world_size)}
        moved = sum(1 for stream, owner in owners.items() if stream not in dealt.get(owner, ()))
        for slot, entry in enumerate(self._plan.playing):
            if entry is not None:
                self.meter.close(slot, entry[0])
        index = max(int(state["plan"]["index"]) for state in states)
        self._plan.load_state_dict(
            {
                "index": index,
                "slots": [None] * len(self.slots),
                "queues": {modality: [] for modality in self.modalities},
                "finished": sorted(finished) if self.rank == 0 else [],
            }
        )
        self._plan.fill(self._dealt(places, self.rank))
        self.meter.load_resharded([each["meter"] for each in states], self.world_size)
        self._open_slots()
        if self.rank == 0:
            logger.info(
                "resharded: world size %d -> %d, %d streams, %d moved to another rank, at step %d",
                states[0]["world_size"],
                self.world_size,
                len(owners),
                moved,
                int(states[0]["meter"]["step"]) - 1,
            )

    def _check_known(self, streams: Iterable[str]) -> None:
        unknown = sorted(stream for stream in streams if stream not in self._streams)
        if unknown:
            raise StateMismatchError(
                f"the saved state has {len(unknown)} streams that are not given now, the first is {unknown[0]!r}; "
                "give the job the same streams"
            )


def _held(state: Mapping[str, Any]) -> list[str]:
    plan = state["plan"]
    return [entry[0] for entry in plan["slots"] if entry is not None] + [
        entry[0] for queue in plan["queues"].values() for entry in queue
    ]


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ConfigurationError(f"mixing.{name} must be positive, got {value}")
    return value


def _check_streams(streams: Sequence[Stream]) -> None:
    if not streams:
        raise ConfigurationError("mixing: no streams were given; name at least one")
    seen: set[str] = set()
    for stream in streams:
        if stream.id in seen:
            raise ConfigurationError(f"mixing: two streams have the id {stream.id!r}; ids must be distinct")
        seen.add(stream.id)
        if len(stream) < 1:
            raise ConfigurationError(f"mixing: stream {stream.id!r} has no rows; leave it out")


def _rank_and_world(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise ConfigurationError("mixing: give both rank and world_size, or neither")
    if rank is None or world_size is None:
        ready = dist.is_available() and dist.is_initialized()
        return (dist.get_rank(), dist.get_world_size()) if ready else (0, 1)
    if not 0 <= rank < world_size:
        raise ConfigurationError(f"mixing: rank must be in 0 .. {world_size - 1}, got {rank}")
    return rank, world_size
