"""Count what a mixer does at the pick site: all seven mixing metrics, for our dataset or a loader of the user's own."""

from __future__ import annotations

import math
from array import array
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
from otel_train.mixing.starvation import Starvation
from otel_train.mixing.weights import checked_modalities, checked_weights, target_shares
from otel_train.untraced import untraced


@untraced
class MixingMeter(PickCounts):
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
        super().__init__(slots, len(self.modalities), horizon=self.horizon, step=step, unit=self._unit)
        self._weights: dict[str, float] = {}
        self.set_weights(weights)

    @property
    def facts(self) -> dict[str, str | float]:
        """Configuration, for people who look at a ring."""
        unit = self._unit.facts(self._total, self._draws)
        return {"mixing.readers": len(self._slots), "mixing.horizon": self.horizon, **unit}

    # -- what happens at the pick site ---------------------------------------------------------------------------

    def log_pick(self, slot: int, stream: str, tokens: int) -> None:
        """Count one pick and send its event, where somebody receives events."""
        self.pick(slot, 1, tokens)
        self._emit_slot("pick", slot, stream, tokens=tokens)

    def open(self, slot: int, modality: str, stream: str = "") -> None:
        """Note that an empty slot got a stream: its reader's age counts from the present step.

        Raises:
            ConfigurationError: The slot is none of this meter's, or the modality is unknown.
        """
        slot = checked_slot(slot, len(self._modality_index))
        self._set_modality(slot, modality)
        self._last_picked_step[slot] = self._step
        self._starvation.surprise[slot] = 0.0
        self._emit_slot("open", slot, stream)

    def restart(self, slot: int, modality: str | None = None, stream: str = "") -> None:
        """Note that a slot's stream ran out and another one replaced it, or that it began again.

        Raises:
            ConfigurationError: The slot is none of this meter's or holds no stream, or the modality is unknown.
        """
        slot = checked_slot(slot, len(self._modality_index))
        if modality is None and self._modality_index[slot] == _EMPTY:
            raise ConfigurationError(f"slot {slot} was restarted but holds no stream; call open(slot, modality) first")
        if modality is not None and modality != self._modality_for_reader[slot]:
            self._set_modality(slot, modality)
        self._restarts += 1
        self._emit_slot("restart", slot, stream)

    def close(self, slot: int, stream: str = "") -> None:
        """Note that a slot's stream ran out and the slot stays empty.

        Raises:
            ConfigurationError: The slot is none of this meter's.
        """
        slot = checked_slot(slot, len(self._modality_index))
        self._emit_slot("close", slot, stream)
        self._slots.assign(slot, None)
        self._expect()

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Change the weights; picks from now on count towards their shares.

        Raises:
            ConfigurationError: A weight breaks a rule; the message names it.
        """
        checked = checked_weights(weights, self.modalities)
        if checked == self._weights:
            return
        self._weights = checked
        self._shares.set_shares(target_shares(checked), self._total - self._weighed)
        self._weighed = self._total
        self._expect()
        if self._events is not None:
            self._events({"event": "weights", "step": self._step, "weights": dict(checked)})

    def _set_modality(self, slot: int, modality: str) -> None:
        if modality not in self._index:
            raise ConfigurationError(
                f"modality of slot {slot} must be one of {', '.join(self.modalities)}, got {modality!r}; "
                "make the meter with every modality of the job"
            )
        self._slots.assign(slot, modality, self._index[modality])
        self._expect()

    def _emit_slot(self, event: str, slot: int, stream: str, **more: int) -> None:
        if self._events is not None:
            of_slot = {"event": event, "step": self._step, "slot": slot, "stream": stream}
            self._events({**of_slot, "modality": self._modality_for_reader[slot], **more})

    def _expect(self) -> None:
        """Note that slots, modalities or weights have changed."""
        self._starvation.expect(self._draws, self._shares.shares, self._modality_index)
        self._active, self._expected, self._earliest = self._slots.active, self._draws, -math.inf

    # -- the end of a step ---------------------------------------------------------------------------------------

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
        return list(self._last_picked_step)

    @property
    def modality_for_reader(self) -> list[str | None]:
        """Modality of each slot's stream, None for an empty slot; the caller's to change."""
        return list(self._modality_for_reader)

    @property
    def step(self) -> int:
        """The step that is being made: what is picked now belongs to it."""
        return self._step

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved: the decayed counts, the ages, the pick before, and the interval so far."""
        return {
            "modalities": list(self.modalities),
            "step": self._step,
            "counts": self._shares.counts.tolist(),
            "targets": self._shares.targets.tolist(),
            "previous": None if self._previous == _EMPTY else self.modalities[self._previous],
            "last_picked_step": self._last_picked_step.tolist(),
            "modality_for_reader": list(self._modality_for_reader),
            "surprise": self._starvation.surprises(self._draws),
            "interval": {
                "picks": self._total - self._total_drained,
                "unpaired": self._unpaired,
                "restarts": self._restarts,
                "switches": self._switches,
                **self._shares.interval_state(self._total - self._weighed),
                "tokens": self._tokens.tolist(),
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
        self._step = state["step"]
        self._previous = _EMPTY if state["previous"] is None else self._index[state["previous"]]
        slots = self._slots
        self._starvation = Starvation(len(slots))
        self._name_arrays()
        restore_slots(state, self._index, slots, self._starvation)
        interval = state["interval"]
        self._shares.load(state["counts"], state["targets"], interval)
        self._total = self._draws = self._weighed = 0.0
        self._expect()
        self._total_drained = -interval["picks"]
        if interval["picks"]:  # the order begins anew, in an interval that has picks
            self._order, self._ordered = extended(self._order, int(interval["picks"])), True
        self._unpaired = interval["unpaired"]
        self._restarts = interval["restarts"]
        self._switches = interval["switches"]
        self._tokens[:] = array("d", interval["tokens"])

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
