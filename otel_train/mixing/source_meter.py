"""Measure the mix of any loader by tags that its rows carry, counted when the training loop reads the batch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import get_worker_info

from otel_train.arguments import MAX_SHOWN, check_fields, reading_state
from otel_train.catalogue import MIXING, Metric
from otel_train.exceptions import ConfigurationError
from otel_train.log_once import OnceLogger
from otel_train.mixing.batch_tags import CountedLoader, Tags, tag_tensor, take_tags, unknown_message, untagged_message
from otel_train.mixing.last_rows import LastRows
from otel_train.mixing.meter import MixingMeter
from otel_train.mixing.meter_state import check_meter_state
from otel_train.mixing.mixing_unit import Scope, Unit
from otel_train.mixing.sample_keys import SampleKeys
from otel_train.mixing.tag_copies import TagCopies
from otel_train.mixing.tags import REPEATS, Field, Tag, distinct_codes
from otel_train.mixing.tally import Tallier, Tally
from otel_train.mixing.weights import checked_modalities
from otel_train.untraced import untraced

logger = logging.getLogger(__name__)

_UNSEEN = -1
_FIELDS = ("meter", "passes", "ended")
_OWNER = "SourceMeter"


@untraced
class SourceMeter:
    """Measures of the mix of a loader that is not ours, by source.

    Each source's rows get a tag where they are made; the loader shuffles, batches and prefetches as it likes; a row
    counts when the training loop reads its batch. Each source is a modality and has one reader, which is open from the
    beginning, so that a source that never comes is seen; one with the weight 0 has none.

    Examples:
        >>> import otel_train
        >>> from torch.utils.data import ConcatDataset, DataLoader
        >>> sources = {"code": [{"x": 1.0, "tokens": 5}] * 4, "prose": [{"x": 2.0, "tokens": 7}] * 4}
        >>> meter = otel_train.SourceMeter({"code": 1, "prose": 1})
        >>> tags = {name: meter.tag(name, tokens="tokens") for name in sources}
        >>> tagged = [otel_train.TaggedDataset(rows, tags[name]) for name, rows in sources.items()]
        >>> loader = DataLoader(ConcatDataset(tagged), batch_size=8, num_workers=0)
        >>> with otel_train.init(sources=[meter], blocking=True) as telemetry:
        ...     for step, batch in enumerate(meter.counted(loader), start=1):
        ...         values = telemetry.step(step)
        >>> sorted(batch), values["stream_mixing/picks"], values["stream_mixing/tokens/prose"]
        (['tokens', 'x'], 8.0, 28.0)

    Args:
        weights: Weight by source, the same on each rank; the target shares are these, normalised.
        horizon: Picks after which a pick's part in the divergence has decayed to 1/e.
        step: The step that the first picks belong to.
        unit: "row", or "batch" where the loader draws one source for all rows of a batch.
        scope: "rank", or "cluster" where only the batches of all ranks together hold the mix.
        samples: Whether rows carry sample keys, of which those that are read twice are counted over all ranks:
            `stream_mixing.repeats`. A `tag(sample=…)` before telemetry is initialised sets it, too.
        window: Newest rows of a rank whose sample keys are compared.

    Raises:
        ConfigurationError: An argument breaks a rule; the message names it.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        horizon: float = 4096,
        step: int = 1,
        unit: Unit = "row",
        scope: Scope = "rank",
        samples: bool = False,
        window: int = 4096,
    ) -> None:
        if not isinstance(weights, Mapping):
            raise ConfigurationError(
                f"weights must map each source to a number, got {type(weights).__name__} {weights!r:.{MAX_SHOWN}}"
            )
        self.modalities = checked_modalities(tuple(weights))
        self._codes = distinct_codes(self.modalities)
        self._index = {source: index for index, source in enumerate(self.modalities)}
        self._tallier = Tallier(list(self._codes))
        self._rows = LastRows(self._tallier)
        self._meter = MixingMeter(
            len(weights), self.modalities, weights, horizon=horizon, step=step, unit=unit, scope=scope
        )
        self._passes = [_UNSEEN] * len(weights)
        self._ended: set[int] = set()
        self._with_sample: dict[str, bool] = {}
        """Whether the rows of each source that was tagged have sample keys."""
        self._idle: set[int] = set()
        """Sources with the weight 0: no reader waits for their rows."""
        self._note_weights(weights)
        self._samples = SampleKeys(compared=samples, window=window)
        self._copies = TagCopies()
        self._warnings = OnceLogger(logger)
        self._has_batches = False
        """Whether a batch was counted, or one without a tag was warned of."""

    # -- what the loader is given --------------------------------------------------------------------------------

    def tag(
        self, source: str, *, tokens: Field | None = None, repeat: Field | None = None, sample: Field | None = None
    ) -> Tag:
        """Return what tags a row of one source: a picklable function of the row, for `map` and the like.

        Args:
            source: A source of this meter's.
            tokens: Where a row has its tokens: the key of their number or of the tokens themselves (or an index, or an
                attribute, where rows are no mappings), or a function of the row. Without it tokens are not counted.
            repeat: Where a row has the number of the pass over its source, from 0: gives `stream_mixing.restarts`.
            sample: Where a row has a key that distinguishes it from the other rows of the source: gives
                `stream_mixing.repeats`. For all sources or for none.

        Raises:
            ConfigurationError: The meter has no such source, or an argument breaks a rule.
        """
        if source not in self._index:
            raise ConfigurationError(
                f"source must be one of {', '.join(self.modalities)}, got {source!r:.{MAX_SHOWN}}; make the meter with "
                "every source of the job"
            )
        for name, field in (("tokens", tokens), ("repeat", repeat), ("sample", sample)):
            if field is not None and not isinstance(field, str | int) and not callable(field):
                raise ConfigurationError(
                    f"{name} must be a key, an index or a function of the row, got {field!r:.{MAX_SHOWN}}"
                )
        self._with_sample[source] = sample is not None
        if len(set(self._with_sample.values())) > 1:
            without = next(name for name, given in self._with_sample.items() if not given)
            raise ConfigurationError(
                f"sample must be given for each source or for none, and is not for {without!r}: rows with "
                "different keys can't be collated; make a new meter, and tag all sources alike"
            )
        if sample is not None:
            self._samples.compare()
        return Tag(source, tokens, repeat, sample)

    # -- where the loop reads a batch ----------------------------------------------------------------------------

    def counted(self, loader: Iterable[Any]) -> CountedLoader:
        """Return a loader that gives the same batches, without their tags, and counts each when it is read."""
        return CountedLoader(loader, self.count)

    def count(self, batch: Any) -> Any:
        """Count the rows of a batch, for the step that is being made, and return it without its tags.

        A batch without a tag comes back as it is; the first one is warned of.

        Args:
            batch: What the loader gave: a mapping, a tuple, an object, nested or not. Tags on a GPU are copied back
                without a wait, and counted when the step ends.

        Raises:
            ConfigurationError: It is called in a DataLoader's worker process, whose counts nobody would see, or the
                tags have been converted to another type. Nothing is counted then.
        """
        if get_worker_info() is not None:
            raise ConfigurationError(
                "SourceMeter.count was called in a DataLoader's worker process, whose counts reach nobody; call it in "
                "the training loop, where the batch is read"
            )
        bare, tags = take_tags(batch)
        self._rows.note(tags.words)
        if tags.words:
            self._take(tags)
        else:
            self._has_batches = True
            self._warnings.warn("untagged", "%s", untagged_message(batch))
        return bare

    def _take(self, tags: Tags) -> None:
        if self._copies.begin(tags):
            if self._copies.are_many:
                self._settle()
            return
        self._settle()
        self._rows.take(self._add(tags))

    def _settle(self) -> None:
        """Count the batches whose tags were on a GPU."""
        for tags in self._copies.finish():
            self._add(tags)

    def _add(self, tags: Tags) -> Tally:
        words = tag_tensor(tags.words)  # whatever is wrong raises before anything is counted
        self._samples.count(tags)
        return self._add_words(words)

    def count_tags(self, words: Any) -> None:
        """Count rows by their tags alone, for a loader that carries them in a way of its own.

        Args:
            words: Tags as `pack_tag` makes them, in the order of the rows: int64 of any shape, or a list of such.

        Raises:
            ConfigurationError: They are not whole numbers.
        """
        self._settle()
        self._rows.note([words])
        self._rows.take(self._add_words(tag_tensor(words)))

    def row_sources(self) -> torch.Tensor | None:
        """Return the index of the source of each row of the last batch; see `RowSource`."""
        return self._rows.sources()

    def _add_words(self, words: torch.Tensor) -> Tally:
        tally = self._tallier.add_up(words, self._passes)
        self._has_batches = True
        if self._ended and (come := {slot for slot in self._ended if tally.counts[slot]}):
            self._ended -= come
            self._fit_readers()
        self._meter.pick_batch(tally)
        if any(tally.passes):
            self._count_passes(tally.passes)
        elif _UNSEEN in self._passes:
            self._note_first_passes(tally.counts)
        if tally.unknown:
            self._warnings.warn("unknown", "%s", unknown_message(tally.unknown, self.modalities))
        return tally

    def _note_first_passes(self, counts: Sequence[int]) -> None:
        self._passes = [
            0 if passed < 0 and count else passed for passed, count in zip(self._passes, counts, strict=True)
        ]

    def _count_passes(self, ahead: Sequence[int]) -> None:
        for slot, passes in enumerate(ahead):
            if self._passes[slot] == _UNSEEN:
                self._passes[slot] = passes
            elif passes:
                self._passes[slot] = (self._passes[slot] + passes) % REPEATS
                for _ in range(0 if slot in self._idle else passes):
                    self._meter.restart(slot)

    def end(self, source: str) -> None:
        """Note that a source has no rows left: its reader is active no longer, until rows of it come again.

        Raises:
            ConfigurationError: The meter has no such source.
        """
        if source not in self._index:
            raise ConfigurationError(f"source must be one of {', '.join(self.modalities)}, got {source!r:.{MAX_SHOWN}}")
        self._settle()
        self._ended.add(self._index[source])
        self._fit_readers()

    def _fit_readers(self) -> None:
        """Have a reader for each source whose rows are to come, and for no other."""
        for slot, reader in enumerate(self._meter.modality_for_reader):
            is_open = slot not in self._ended and slot not in self._idle
            if is_open and reader is None:
                self._meter.open(slot, self.modalities[slot])
            elif reader is not None and not is_open:
                self._meter.close(slot)

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Change the weights; rows counted from now on count towards their shares.

        A source with the weight 0 has no reader: nothing waits for its rows, though they count if they come.

        Raises:
            ConfigurationError: A weight breaks a rule; the message names it.
        """
        self._settle()
        self._meter.set_weights(weights)
        self._note_weights(weights)

    def _note_weights(self, weights: Mapping[str, float]) -> None:
        self._idle = {slot for slot, source in enumerate(self.modalities) if not weights.get(source, 0)}
        self._fit_readers()

    # -- a source of telemetry -----------------------------------------------------------------------------------

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics that it measures; settled when they are first read."""
        return MIXING + self._samples.metrics

    @property
    def facts(self) -> dict[str, str | float]:
        """Configuration, for people who look at a ring."""
        return self._meter.facts

    @property
    def last_picked_step(self) -> list[int]:
        """Step of each source's last row; the caller's to change."""
        self._settle()
        return self._meter.last_picked_step

    @property
    def modality_for_reader(self) -> list[str | None]:
        """Each source, None for one that has ended; the caller's to change."""
        return self._meter.modality_for_reader

    @property
    def step(self) -> int:
        """The step that is being made: what is counted now belongs to it."""
        return self._meter.step

    def end_step(self, step: int) -> None:
        """Note the end of a step that is not a log step."""
        self._settle()
        self._meter.end_step(step)

    def drain_measurements(self, step: int | None = None) -> list[float]:
        """End the interval with `step`; see `MixingMeter.drain_measurements`."""
        self._settle()
        self._warn_of_nothing()
        values = self._meter.drain_measurements(step)
        values[-1:-1] = self._samples.drain()  # before the one peak, as the layout has it
        return values

    def drain_step_metrics(self, step: int | None = None) -> dict[str, float]:
        """End the interval with `step` and return this rank's own values, by wandb key."""
        self._settle()
        self._warn_of_nothing()
        return {**self._meter.drain_step_metrics(step), **self._samples.values()}

    def _warn_of_nothing(self) -> None:
        if not self._has_batches:
            self._warnings.warn(
                "nothing",
                "no batch has been counted before the end of step %d: read batches through "
                "SourceMeter.counted(loader), or give each to SourceMeter.count(batch), in the training process",
                self._meter.step,
            )

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved: the counts and ages by source, and the pass that each is in."""
        self._settle()
        return {
            "meter": self._meter.state_dict(),
            "passes": dict(zip(self.modalities, self._passes, strict=True)),
            "ended": [self.modalities[slot] for slot in sorted(self._ended)],
            "samples": self._samples.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, by the names of the sources: in any order, with some new or gone.

        A new source begins from zero, what one that is gone has counted is dropped. Weights and horizon are this
        meter's.

        Raises:
            StateMismatchError: It is the state of something else, or has none of the sources.
        """
        check_fields(state, _FIELDS, _OWNER)
        with reading_state(_OWNER):
            saved = state["meter"]
            check_meter_state(saved)
            ages = zip(saved["last_picked_step"], saved["surprise"], strict=True)
            slots = dict(zip(saved["modalities"], ages, strict=True))
            entries = [slots.get(source, (int(saved["step"]), 0.0)) for source in self.modalities]
            ended = set(state["ended"])
            closed = set(saved["modalities"]) - set(saved["modality_for_reader"])
            passes = [int(state["passes"].get(source, _UNSEEN)) for source in self.modalities]
            arranged = {
                **saved,
                "modality_for_reader": [None if source in closed else source for source in self.modalities],
                "last_picked_step": [picked for picked, _ in entries],
                "surprise": [surprise for _, surprise in entries],
            }
        self._settle()
        self._meter.load_state_dict(arranged)
        if "samples" in state:  # not in those of older versions
            self._samples.load_state_dict(state["samples"])
        self._passes, self._ended = passes, {slot for slot, name in enumerate(self.modalities) if name in ended}
        self._fit_readers()

    def load_resharded(self, states: Sequence[Mapping[str, Any]], rank: int, world_size: int) -> None:
        """Go on from what the meters of all ranks of a job of another world size returned.

        Args:
            states: One of each rank of the saved job, in their order.
            rank: This rank.
            world_size: The present world size.

        Raises:
            StateMismatchError: As `load_state_dict`.
        """
        for state in states:
            check_fields(state, _FIELDS, _OWNER)
        with reading_state(_OWNER):
            former = states[rank % len(states)]["passes"]
            passes = [int(former.get(source, _UNSEEN)) for source in self.modalities]
            ended = set.intersection(*(set(state["ended"]) for state in states))
            self._meter.load_resharded([state["meter"] for state in states], rank, world_size)
        self._passes, self._ended = passes, {slot for slot, name in enumerate(self.modalities) if name in ended}
        self._fit_readers()
