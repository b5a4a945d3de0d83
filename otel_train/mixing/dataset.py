"""The mixing dataset: rows of many streams, picked by weight, measured at the pick site, resumable at any step."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from torch.utils.data import IterableDataset, get_worker_info

from otel_train.arguments import whole_number
from otel_train.catalogue import MIXING, Metric
from otel_train.event_sink import EventSink
from otel_train.mixing.argument_checks import batch_numbers, checked_bias, checked_rank, checked_slots
from otel_train.mixing.batch import READERS, MixedBatch
from otel_train.mixing.callers import calling_loader, restores_loader
from otel_train.mixing.consumption import LastBatch, batch_tokens, check_next, log_skip
from otel_train.mixing.dealing import check_every_rank_reads
from otel_train.mixing.loader_rows import LoaderRows, check_loader
from otel_train.mixing.meter import MixingMeter
from otel_train.mixing.pick_steps import PickSteps
from otel_train.mixing.plan import AtEnd, MixPlan, Pick, checked_at_end
from otel_train.mixing.progress import WorkerProgress
from otel_train.mixing.resume import Job, Share, begin, checked_states, log_resume, resume, saved_streams
from otel_train.mixing.streams import Stream, checked_streams, read_row
from otel_train.mixing.weights import Weights, WeightSchedule, checked_weights
from otel_train.untraced import untraced

_ROWS_PER_STEP = "give the rows that this rank consumes in a step"


@untraced
class StreamMixingDataset(IterableDataset[MixedBatch]):
    """Rows from K reader slots of this rank, each playing one stream of its modality at a time.

    Works alone, and under `torch.utils.data.DataLoader` with any number of workers. The workers don't split the
    streams: each plans all picks of the rank and reads the rows of its own batches, so the batches are the same for any
    number of workers. A pick is counted when the training loop first reads its batch (see `MixedBatch`), and without a
    DataLoader when its row comes. A `collate_fn` that does not keep the mapping goes into `MixedCollate`, or its "pick"
    and "length" are handed to `consume`.

    A row has the stream's own values and "stream", "modality", "slot", "position" (the row of the stream), "pick" (the
    running number of the rank's pick) and "length" (tokens).

    Examples:
        >>> import otel_train
        >>> class Numbers:
        ...     def __init__(self, id, modality, length):
        ...         self.id, self.modality, self.length = id, modality, length
        ...     def __len__(self):
        ...         return self.length
        ...     def read(self, position):
        ...         return {"value": position}, 1              # a row, and its tokens
        >>> streams = [Numbers("a", "code", 100), Numbers("b", "prose", 100)]
        >>> dataset = otel_train.StreamMixingDataset(streams, {"code": 1, "prose": 3}, readers=2)
        >>> rows = iter(dataset)
        >>> sorted({next(rows)["modality"] for _ in range(50)})
        ['code', 'prose']
        >>> dataset.drain_step_metrics(1)["stream_mixing/picks"]
        50.0

    Args:
        streams: All streams of the job, the same on each rank.
        weights: Weight by modality, or a function of the step.
        readers: Number of slots, K; needed unless `slots` is given.
        slots: The modality of each slot; by default each modality gets one and the others go by weight.
        reader_bias: A factor for each slot; readers of one modality share its weight in proportion to it.
        batch_size: Rows that the DataLoader puts into a batch.
        rows_per_step: Rows that this rank consumes in a step, which the weights go by; `batch_size` by default.
        at_end: Rule for a slot whose stream runs out.
        seed: Seed of the order of the streams and the choice of readers.
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
        self._streams = checked_streams(streams)
        self.modalities = tuple(sorted({stream.modality for stream in self._streams.values()}))
        self._weights = weights
        self.rank, self.world_size = checked_rank(rank, world_size)
        self.batch_size = whole_number("batch_size", batch_size, least=1, remedy="give the DataLoader's")
        self.rows_per_step = whole_number(
            "rows_per_step", batch_size if rows_per_step is None else rows_per_step, least=1, remedy=_ROWS_PER_STEP
        )
        self.seed = whole_number("seed", seed, least=-(2**63), remedy="the same on all ranks")
        self.slots = checked_slots(readers, slots, self._weights_at(1))
        self._bias = checked_bias(reader_bias, len(self.slots))
        self._at_end = checked_at_end(at_end)
        self._job = Job(
            modalities={stream.id: stream.modality for stream in self._streams.values()},
            lengths={stream.id: len(stream) for stream in self._streams.values()},
            seed=self.seed,
            world_size=self.world_size,
            begins_again=self._at_end is not AtEnd.NEXT,
        )
        share = begin(self._job, self.rank)
        self._check_share(share)
        self._steps, self._last_batch = PickSteps(self.rows_per_step), LastBatch(self.slots, self.modalities)
        self.meter = MixingMeter(len(self.slots), self.modalities, self._weights_at(1), horizon=horizon, events=events)
        self._take(share)
        self._open_slots()
        self._progress = WorkerProgress()
        self._times_begun = 0
        self._counted_here = self._skipped = 0
        """The first pick that did not count when its row was made, and the first that a loader did not skip."""
        self._untouched, self._loaded = True, False
        """Whether no pick is counted and no state loaded; whether one is loaded and no pick counted since."""
        self._token = uuid.uuid4().hex
        READERS[self._token] = self

    # -- set-up --------------------------------------------------------------------------------------------------

    def _weights_at(self, step: int) -> dict[str, float]:
        weights = self._weights(step) if callable(self._weights) else self._weights
        return checked_weights(weights, self.modalities)

    def _check_share(self, share: Share) -> None:
        """Check what all ranks have, at the weights of the present step and at those of a schedule's later changes."""
        steps = {share.step, *(self._weights.steps if isinstance(self._weights, WeightSchedule) else ())}
        hands = [[self._job.modalities[stream] for stream in hand] for hand in share.active]
        for step in sorted(step for step in steps if step >= share.step):
            check_every_rank_reads(hands, self.slots, self._bias, self._weights_at(step))

    def _take(self, share: Share) -> None:
        """Let this rank go on with its share."""
        plan = MixPlan(
            self._job.lengths,
            self._job.modalities,
            self.slots,
            self._bias,
            seed=self.seed,
            rank=self.rank,
            at_end=self._at_end,
        )
        plan.index, plan.finished = share.index, list(share.finished)
        plan.fill(share.starts)
        self._plan, self._owners = plan, share.owners
        self._steps.restart(share.step, share.index, share.picks_in_step)
        weights = self._weights_at(share.step)
        plan.set_weights(weights)
        self.meter.set_weights(weights)

    def _open_slots(self, kept: Collection[int] = ()) -> None:
        for slot, entry in enumerate(self._plan.playing):
            if entry is not None and slot not in kept:
                self.meter.open(slot, self.slots[slot], entry[0])

    # -- reading -------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[MixedBatch]:
        """Yield rows, from where the training loop is.

        Raises:
            ConfigurationError: The loader would leave rows out, or take their picks away.
        """
        if (loader := calling_loader()) is None:
            return self._rows_counted_here()
        check_loader(loader, self.rank, self.world_size, self.batch_size)
        if (worker := get_worker_info()) is not None:
            self._begin_worker(worker.id, worker.num_workers)
        plan = self._plan.copy()
        plan.set_weights(self._weights_at(self._steps.step_of(plan.index)))
        arguments: dict[str, Any] = {"token": self._token, "batch_size": self.batch_size, "progress": self._progress}
        return LoaderRows(plan, self._next_pick, self._read, slices=loader.slices, **arguments)

    def _rows_counted_here(self) -> Iterator[MixedBatch]:
        while (pick := self._next_pick(self._plan, self.meter)) is not None:
            row = self._read(pick)
            self._count(pick, row["length"])
            self._counted_here = self._plan.index
            self._untouched = self._loaded = False
            yield MixedBatch(row)

    def _begin_worker(self, worker: int, workers: int) -> None:
        self._times_begun += 1
        if self._times_begun > 1:
            # A persistent worker begins again: what it had read ahead is thrown away.
            while self._plan.index < self._progress.consumed:
                self._next_pick(self._plan)
        self._progress.begin(worker, workers, self._times_begun)

    def _next_pick(self, plan: MixPlan, meter: MixingMeter | None = None) -> Pick | None:
        if callable(self._weights) and self._steps.is_first(plan.index):
            weights = self._weights_at(self._steps.step_of(plan.index))
            plan.set_weights(weights)
            if meter is not None:
                meter.set_weights(weights)
        return plan.next()

    def _read(self, pick: Pick) -> dict[str, Any]:
        row, tokens = read_row(self._streams[pick.stream], pick.position, pick.slot)
        row["pick"], row["length"] = pick.index, tokens
        return row

    def _count(self, pick: Pick, tokens: int) -> None:
        self.meter.log_pick(pick.slot, pick.stream, tokens)
        if pick.successor is not None:
            self.meter.restart(pick.slot, stream=pick.successor)
        elif pick.ends:
            self.meter.close(pick.slot, pick.stream)
        self._progress.consume(self._plan.index)

    def consume(self, batch: Mapping[str, Any]) -> None:
        """Count the picks of a batch that a DataLoader made, in the step that is being made.

        Called by `MixedBatch`; call it yourself where a `collate_fn` of your own makes something else of the rows. Rows
        that were read without a DataLoader are counted already when they come, and this does nothing.

        Args:
            batch: "pick" and "length", each an int or an int64 tensor [rows]. The rows may have any order; one that is
                there twice counts once.

        Raises:
            ConfigurationError: The picks are not the next ones: the DataLoader's batch size is not this dataset's, or a
                batch was left out, or batches come in another order. Or the batch has no "pick" and "length", or they
                are no numbers. Nothing of it is counted then.
        """
        self._progress.await_workers()
        tokens = batch_tokens(batch)
        if not tokens or max(tokens) < self._counted_here:
            return
        check_next(list(tokens), self._plan.index, self.batch_size, first_batch=self._untouched)
        self._skip_to(min(tokens))
        self._untouched = self._loaded = False
        self._last_batch.begin(batch["pick"])
        for length in tokens.values():
            pick = self._next_pick(self._plan, self.meter)
            assert pick is not None, "the loader made this pick from the same plan"
            self._count(pick, length)
            self._last_batch.add(pick)

    def row_sources(self) -> list[int] | None:
        """Return the index of the modality of each row of the last batch of a DataLoader; see `RowSource`."""
        return self._last_batch.sources()

    def _skip_to(self, index: int) -> None:
        """Go on where a loader does that has read as far as a saved job: this one did not consume what it skips."""
        if self._plan.index == index:
            return
        log_skip(self._plan.index, index - 1)
        before = list(self._plan.playing)
        while self._plan.index < index and self._next_pick(self._plan, self.meter) is not None:
            pass
        for slot, (was, now) in enumerate(zip(before, self._plan.playing, strict=True)):
            if was is not None and now is None:
                self.meter.close(slot, was[0])
        self._skipped = index

    def consume_once(self, batch: Mapping[str, Any]) -> None:
        """Count the picks of a batch unless they are counted already, with a copy of it; called by `MixedBatch`."""
        picks = batch_numbers(batch, "pick")
        if not picks or max(picks) >= self._plan.index or min(picks) < self._skipped:
            self.consume(batch)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A dataset of its own: what its workers make is counted by it, and not by the one that it was copied from.
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        vars(copied).update(copy.deepcopy(vars(self), memo))
        copied._token = uuid.uuid4().hex
        READERS[copied._token] = copied
        return copied

    # -- a source of telemetry -----------------------------------------------------------------------------------

    @property
    def facts(self) -> dict[str, str | float]:
        """Configuration, for people who look at a ring."""
        own = {f"mixing.{name}": getattr(self, name) for name in ("batch_size", "rows_per_step", "seed")}
        own |= {"mixing.streams": len(self._streams), "mixing.weights_change": callable(self._weights)}
        return {**self.meter.facts, **own}

    @property
    def needs_clock(self) -> bool:
        """Whether `end_step` matters to training itself: a schedule of weights goes on at the step that was saved."""
        return callable(self._weights)

    @property
    def last_picked_step(self) -> list[int]:
        """Step of each slot's last pick; see `MixingMeter.last_picked_step`."""
        return self.meter.last_picked_step

    @property
    def modality_for_reader(self) -> list[str | None]:
        """Modality of each slot's stream; see `MixingMeter.modality_for_reader`."""
        return self.meter.modality_for_reader

    # Names that the outside has relied on since before there were public ones.
    _last_picked_step, _modality_for_reader = last_picked_step, modality_for_reader

    def end_step(self, step: int) -> None:
        """Note the end of a step that is not a log step."""
        self.meter.end_step(step)
        self._note_end(step)

    def drain_measurements(self, step: int | None = None) -> list[float]:
        """End the interval with `step`; see `MixingMeter.drain_measurements`."""
        self._progress.warn_of_lost_picks(self._plan.index)
        values = self.meter.drain_measurements(step)
        self._note_end(step)
        return values

    def drain_step_metrics(self, step: int | None = None) -> dict[str, float]:
        """End the interval with `step` and return this rank's own values, by wandb key."""
        self._progress.warn_of_lost_picks(self._plan.index)
        values = self.meter.drain_step_metrics(step)
        self._note_end(step)
        return values

    def _note_end(self, step: int | None) -> None:
        if step is not None:
            self._steps.end(self.meter.step - 1, self._plan.index, scheduled=callable(self._weights))

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return this rank's position in every stream it holds, as the training loop has consumed them."""
        if get_worker_info() is not None:
            return {}  # torchdata's StatefulDataLoader asks, for a worker's copy, which counts nothing
        step, picks_in_step = self._steps.present(self._plan.index)
        return {
            "world_size": self.world_size,
            "rank": self.rank,
            "step": step,
            "picks_in_step": picks_in_step,
            "streams": saved_streams(self._job.modalities, self._owners, self.world_size),
            "plan": self._plan.state_dict(),
            "meter": self.meter.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Go on from saved state: this rank's own, or that of all ranks of the saved job.

        What is saved is data: the streams, the row at which each goes on, the counts, the step. What this dataset was
        made with is used from now on: weights, readers, batch size, seed, `at_end`. Streams that the saved job did not
        have are read from their first row, those that are not given now are dropped. A stream that runs out only once
        and has ended stays ended. A schedule of weights goes on at the step that was saved.

        With the states of a job of another world size the streams are dealt out again: none twice, none lost, each
        goes on at its row, those that were playing first. Rank 0 logs it, and which streams are new or dropped.

        Raises:
            StateMismatchError: The state does not fit this job: it is another class's or another version's, a rank's is
                missing, no stream of it is given now, or a stream has another modality or fewer rows than were read.
                Nothing is changed then.
            ConfigurationError: A rank would have no stream that it can read; on all ranks where the world size is new.
        """
        if get_worker_info() is not None or (self._loaded and restores_loader()):
            return  # torchdata's StatefulDataLoader has a state too, which may be older than the dataset's own
        resumed = resume(self._job, self.rank, self.modalities, checked_states(state))
        share, meter = resumed.share, resumed.meter
        if any(share.active):
            self._check_share(share)
        before = list(self._plan.playing)
        self._take(share)
        playing = [entry and entry[0] for entry in self._plan.playing]
        kept = {
            slot for slot, (was, now) in enumerate(zip(resumed.playing, playing, strict=False)) if now and was == now
        }
        for slot, entry in enumerate(before):
            if entry is not None and slot not in kept:
                self.meter.close(slot, entry[0])
        for slot in set(range(len(meter["modality_for_reader"]))) - kept:
            meter["modality_for_reader"][slot] = None
        self.meter.load_state_dict(meter)
        self._open_slots(kept)
        self._counted_here = self._skipped = 0
        self._untouched, self._loaded = False, not restores_loader()
        self._progress.restart(self._plan.index)
        if self.rank == 0:
            log_resume(self._job, resumed)
