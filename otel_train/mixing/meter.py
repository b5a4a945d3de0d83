"""Count what a mixer does at the pick site: all seven mixing metrics, for our dataset or a loader of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otel_train.arguments import finite_number, whole_number
from otel_train.catalogue import MIXING, Layout, Metric
from otel_train.event_sink import EventSink
from otel_train.exceptions import ConfigurationError
from otel_train.mixing.argument_checks import checked_slot
from otel_train.mixing.meter_state import fitted, merge_meter_states, restore_slots
from otel_train.mixing.mixing_unit import MixingUnit, Scope, Unit
from otel_train.mixing.pick_counts import PickCounts
from otel_train.mixing.pick_order import extended
from otel_train.mixing.reader_slots import EMPTY as _EMPTY
from otel_train.mixing.tally import Tally
from otel_train.mixing.weights import checked_modalities, checked_weights, target_shares
from otel_train.native.arrays import overwrite
from otel_train.training_counter import TAG_ROWS, TrainingCounter
from otel_train.untraced import untraced

MOST_NAMED = 64
"""Modalities whose weights are named among the facts."""


@untraced
class MixingMeter(TrainingCounter, counting="pick pick_batch restart", instead=TAG_ROWS):
    """Measures of one rank's mixer.

    A loader of the user's own opens its slots and counts each row for the slot that it came from; a session drains it.

    Examples:
        >>> import otel_train
        >>> meter = otel_train.MixingMeter(2, ["code", "prose"], {"code": 1, "prose": 3})
        >>> meter.open(0, "code")
        >>> meter.open(1, "prose")
        >>> with otel_train.init(sources=[meter], blocking=True) as telemetry:
        ...     for slot in (0, 1, 1, 1):
        ...         meter.pick(slot, tokens=512)
        ...     values = telemetry.step(1)
        >>> values["stream_mixing/picks"], values["stream_mixing/mix_divergence"]
        (4.0, 0.0)

    Args:
        slots: Number of reader slots, K.
        modalities: All modalities of the job, in the same order on each rank.
        weights: Weight by modality; the target shares are these, normalised.
        horizon: Picks after which a pick's part in the divergence has decayed to 1/e.
        step: The step that the first picks belong to.
        unit: "row", or "batch" where the mixer draws one source for a whole batch: a call of `pick` is one draw then.
        scope: "rank", or "cluster" where only the batches of all ranks together hold the mix: a rank's own starve then.
        events: Takes an event for each thing that happens; None (the default) costs nothing.

    Raises:
        ConfigurationError: An argument breaks a rule; the message names it.
    """

    metrics: tuple[Metric, ...] = MIXING

    def __init__(
        self,
        slots: int,
        modalities: Sequence[str],
        weights: Mapping[str, float],
        *,
        horizon: float = 4096,
        step: int = 1,
        unit: Unit = "row",
        scope: Scope = "rank",
        events: EventSink | None = None,
    ) -> None:
        slots = whole_number("slots", slots, least=0, remedy="give the number of reader slots of this rank")
        step = whole_number("step", step, least=0, remedy="give the step that the first picks belong to")
        self.modalities = checked_modalities(modalities)
        self.horizon = finite_number("horizon", horizon, remedy="4096 picks is the default")
        if not self.horizon:
            raise ConfigurationError("horizon must be positive, got 0; 4096 picks is the default")
        self._unit = MixingUnit(unit, scope)
        self._layout = Layout(self.metrics, self.modalities)
        self._index = {modality: index for index, modality in enumerate(self.modalities)}
        self._events = events
        self._picks = PickCounts(slots, len(self.modalities), horizon=self.horizon, step=step, unit=self._unit)
        self._begin_counting()
        self._weights: dict[str, float] = {}
        self.set_weights(weights)

    def _begin_counting(self) -> None:
        self._slots = self._picks.slots
        # It saves a call at each pick: a tenth of a microsecond, behind a training step a whole one. A class of the
        # user's may have a pick of its own.
        if type(self).pick is _PICK:
            vars(self).setdefault("pick", self._picks.pick)

    @property
    def facts(self) -> dict[str, str | float]:
        """Configuration, for people who look at a ring."""
        unit = self._unit.facts(self._picks.total, self._picks.draws)
        few = self._weights if len(self._weights) <= MOST_NAMED else {}
        weights = {f"mixing.weights.{modality}": weight for modality, weight in few.items()}
        return {"mixing.readers": len(self._slots), "mixing.horizon": self.horizon, **unit, **weights}

    # -- what happens at the pick site ---------------------------------------------------------------------------

    def pick(self, slot: int, rows: int = 1, tokens: float = 0) -> None:
        """Count `rows` picks of the reader in `slot`, whose rows hold `tokens` tokens together.

        Args:
            slot: An open slot, 0 for the first one.
            rows: Number of picks: a whole number, or a tensor of one.
            tokens: Number of tokens: a finite number, or a tensor of one element.

        Raises:
            ConfigurationError: The slot is none of this meter's or holds no stream, or a count is negative or not
                a number. Nothing is counted then. Nothing that happens in training raises here.
        """
        self._picks.pick(slot, rows, tokens)

    def pick_batch(self, tally: Tally) -> None:
        """Count the rows of a batch, for a meter of which slot i holds the i-th modality, where it has rows."""
        self._picks.pick_batch(tally)

    def log_pick(self, slot: int, stream: str, tokens: int) -> None:
        """Count one pick and send its event, where somebody receives events."""
        self.pick(slot, 1, tokens)
        self._emit_slot("pick", slot, stream, tokens=tokens)

    def open(self, slot: int, modality: str, stream: str = "") -> None:
        """Note that an empty slot got a stream: its reader's age counts from the present step.

        Raises:
            ConfigurationError: The slot is none of this meter's, or the modality is unknown.
        """
        slot = checked_slot(slot, len(self._slots.modality_index))
        self._set_modality(slot, modality)
        self._slots.last_picked_step[slot] = self._picks.step
        self._picks.starvation.surprise[slot] = 0.0
        self._emit_slot("open", slot, stream)

    def restart(self, slot: int, modality: str | None = None, stream: str = "") -> None:
        """Note that a slot's stream ran out and another one replaced it, or that it began again.

        Raises:
            ConfigurationError: The slot is none of this meter's or holds no stream, or the modality is unknown.
        """
        slot = checked_slot(slot, len(self._slots.modality_index))
        if modality is None and self._slots.modality_index[slot] == _EMPTY:
            raise ConfigurationError(f"slot {slot} was restarted but holds no stream; call open(slot, modality) first")
        if modality is not None and modality != self._slots.modality_for_reader[slot]:
            self._set_modality(slot, modality)
        self._picks.restarts += 1
        self._emit_slot("restart", slot, stream)

    def close(self, slot: int, stream: str = "") -> None:
        """Note that a slot's stream ran out and the slot stays empty.

        Raises:
            ConfigurationError: The slot is none of this meter's.
        """
        slot = checked_slot(slot, len(self._slots.modality_index))
        self._emit_slot("close", slot, stream)
        self._slots.assign(slot, None)
        self._picks.expect()

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Change the weights; picks from now on count towards their shares.

        Raises:
            ConfigurationError: A weight breaks a rule; the message names it.
        """
        checked = checked_weights(weights, self.modalities)
        if checked == self._weights:
            return
        self._weights = checked
        self._picks.set_shares(target_shares(checked))
        if self._events is not None:
            self._events({"event": "weights", "step": self._picks.step, "weights": dict(checked)})

    def _set_modality(self, slot: int, modality: str) -> None:
        if modality not in self._index:
            raise ConfigurationError(
                f"modality of slot {slot} must be one of {', '.join(self.modalities)}, got {modality!r}; "
                "make the meter with every modality of the job"
            )
        self._slots.assign(slot, modality, self._index[modality])
        self._picks.expect()

    def _emit_slot(self, event: str, slot: int, stream: str, **more: int) -> None:
        if self._events is not None:
            of_slot = {"event": event, "step": self._picks.step, "slot": slot, "stream": stream}
            self._events({**of_slot, "modality": self._slots.modality_for_reader[slot], **more})

    # -- the end of a step ---------------------------------------------------------------------------------------

    def end_step(self, step: int) -> None:
        """Note the end of a step that is not a log step: what comes now belongs to the next one."""
        self._picks.end_step(step)

    def drain_measurements(self, step: int | None = None) -> list[float]:
        """End the interval with `step` and return its measurements, flat.

        Args:
            step: The step that ends; by default the one after the last drained.

        Returns:
            float [sums + peaks] in the order of `Layout(MIXING, modalities)`.
        """
        return self._picks.drain(step)

    def drain_step_metrics(self, step: int | None = None) -> dict[str, float]:
        """End the interval with `step` and return this rank's own values, by wandb key.

        Means and the divergence can't be joined over ranks from these: that is what `aggregate_step_metrics` is for.
        """
        values = self.drain_measurements(step)
        sums, given = values[: self._layout.sums], values[self._layout.sums :]
        return self._layout.by_key(sums, self._layout.complete_peaks(sums, given))

    # -- state ---------------------------------------------------------------------------------------------------

    @property
    def last_picked_step(self) -> list[int]:
        """Step of each slot's last pick, or of its opening where that came later; the caller's to change."""
        return list(self._slots.last_picked_step)

    @property
    def modality_for_reader(self) -> list[str | None]:
        """Modality of each slot's stream, None for an empty slot; the caller's to change."""
        return list(self._slots.modality_for_reader)

    @property
    def step(self) -> int:
        """The step that is being made: what is picked now belongs to it."""
        return self._picks.step

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved: the decayed counts, the ages, the pick before, and the interval so far."""
        picks, slots = self._picks, self._slots
        return {
            "modalities": list(self.modalities),
            "step": picks.step,
            "counts": picks.shares.counts.tolist(),
            "targets": picks.shares.targets.tolist(),
            "previous": None if picks.previous == _EMPTY else self.modalities[picks.previous],
            "last_picked_step": slots.last_picked_step.tolist(),
            "modality_for_reader": list(slots.modality_for_reader),
            "surprise": picks.starvation.surprises(picks.draws),
            "interval": {
                "picks": picks.total - picks.total_drained,
                "unpaired": picks.unpaired,
                "restarts": picks.restarts,
                "switches": picks.switches,
                **picks.shares.interval_state(picks.since_weighed),
                "tokens": picks.tokens.tolist(),
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned: the saved counts and ages, with the present configuration.

        Weights, horizon and the number of slots are this meter's. A modality that was not there begins from zero, one
        that is gone is dropped. A slot that is open here for another modality than the saved one keeps its own, and its
        age begins now; a slot that the saved meter did not have stays as it is.

        Raises:
            StateMismatchError: It is the state of something else, or has none of the modalities.
        """
        state = fitted(state, self.modalities)
        picks, interval = self._picks, state["interval"]
        picks.step = state["step"]
        picks.previous = _EMPTY if state["previous"] is None else self._index[state["previous"]]
        picks.begin_anew()
        restore_slots(state, self._index, self._slots, picks.starvation)
        picks.shares.load(state["counts"], state["targets"], interval)
        picks.expect()
        picks.total_drained = -interval["picks"]
        if interval["picks"]:  # the order begins anew, in an interval that has picks
            picks.order, picks.ordered = extended(picks.order, int(interval["picks"])), True
        picks.unpaired = interval["unpaired"]
        picks.restarts = interval["restarts"]
        picks.switches = interval["switches"]
        overwrite(picks.tokens, interval["tokens"])

    def load_resharded(self, states: Sequence[Mapping[str, Any]], rank: int, world_size: int) -> None:
        """Go on from what the meters of all ranks of a job of another world size returned.

        The cluster's divergence and the sums of the interval go on unchanged; slots are those that are open here.

        Args:
            states: One of each rank of the saved job, in their order.
            rank: This rank.
            world_size: The present world size.

        Raises:
            StateMismatchError: As `load_state_dict`.
        """
        self.load_state_dict(merge_meter_states(states, rank, world_size))

    def __getstate__(self) -> dict[str, Any]:
        # A DataLoader's worker gets a copy that counts nothing; the sink of events stays with the training process.
        return {**super().__getstate__(), "_events": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin_counting()


_PICK = MixingMeter.pick


def picks_of(source: object) -> PickCounts | None:
    """Return the counts of a meter that has nothing else to do when a step ends; None for any other source."""
    if type(source) is not MixingMeter or "drain_measurements" in vars(source):  # a subclass of the user's, a copy
        return None
    return source._picks  # noqa: SLF001  # this module's own
