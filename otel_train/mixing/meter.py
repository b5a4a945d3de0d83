"""Count what a mixer does at the pick site: all seven mixing metrics, for our dataset or a loader of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otel_train.arguments import finite_number, whole_number
from otel_train.catalogue import ABSENT, MIXING, Layout, Metric
from otel_train.event_sink import EventSink
from otel_train.exceptions import ConfigurationError
from otel_train.mixing.argument_checks import checked_pick, checked_slot
from otel_train.mixing.decayed_shares import DecayedShares
from otel_train.mixing.meter_state import fitted, merge_meter_states, restore_slots
from otel_train.mixing.mixing_unit import MixingUnit, Scope, Unit
from otel_train.mixing.pick_order import PickOrder
from otel_train.mixing.reader_slots import EMPTY as _EMPTY
from otel_train.mixing.reader_slots import ReaderSlots
from otel_train.mixing.starvation import Starvation
from otel_train.mixing.tally import Tally
from otel_train.mixing.weights import checked_modalities, checked_weights, target_shares
from otel_train.training_counter import TAG_ROWS, TrainingCounter
from otel_train.untraced import untraced


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
        self._by_batch, self._judged = self._unit.by_batch, self._unit.by_rank
        self._layout = Layout(self.metrics, self.modalities)
        self._index = {modality: index for index, modality in enumerate(self.modalities)}
        self._events = events
        self._step = step
        # A pick writes the lists of the slots, of the starvation and of the shares itself: a call would cost as much.
        self._slots = ReaderSlots(slots, step)
        self._last_picked_step = self._slots.last_picked_step
        self._modality_index = self._slots.modality_index
        self._modality_for_reader = self._slots.modality_for_reader
        # Counts that go into a record are floats from the beginning: packing need not convert them.
        self._total = self._total_drained = 0.0
        """Picks so far, and at the last drain."""
        self._draws = 0.0
        """Draws so far: picks or, where one source is drawn for each, batches."""
        self._starvation = Starvation(slots)
        self._total_picked = self._starvation.total_picked
        """Draws at each slot's last pick."""
        self._shares = DecayedShares(len(self.modalities), self.horizon)
        self._new_counts = self._shares.new_counts
        self._order = PickOrder()
        self._recent = self._order.recent
        self._tokens = [0.0] * len(self.modalities)
        self._restarts = self._switches = 0.0
        self._previous = _EMPTY
        self._unpaired = 0.0
        """Picks of the interval that are no draw which one of this rank came before."""
        self._weights: dict[str, float] = {}
        self.set_weights(weights)

    @property
    def facts(self) -> dict[str, str | float]:
        """Configuration, for people who look at a ring."""
        unit = self._unit.facts(self._total, self._draws)
        return {"mixing.readers": len(self._slots), "mixing.horizon": self.horizon, **unit}

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
        plain = type(slot) is int and type(rows) is int and type(tokens) is int
        if not (plain and slot >= 0 and 1 << 53 >= rows >= 0 <= tokens):
            slot, rows, tokens = checked_pick(slot, rows, tokens, len(self._modality_index))
        try:
            modality = self._modality_index[slot]
            total = self._total + rows
            if modality == _EMPTY:
                raise ConfigurationError(f"slot {slot} was picked but holds no stream; call open(slot, modality) first")
            self._tokens[modality] += tokens
        except (IndexError, OverflowError):
            checked_pick(slot, rows, tokens, len(self._modality_index))
            raise
        self._new_counts[modality] += rows
        self._last_picked_step[slot] = self._step
        self._total = total
        draws = rows and 1 if self._by_batch else rows
        self._draws = self._total_picked[slot] = self._draws + draws
        self._recent.append(modality)
        if rows != 1:
            self._recent.append(rows)
        if modality != self._previous and rows:
            if self._previous != _EMPTY:
                self._switches += 1
            else:
                self._unpaired += 1
            self._previous = modality
        if draws != rows:
            self._unpaired += rows - draws

    def pick_batch(self, tally: Tally) -> None:
        """Count the rows of a batch, for a meter of which slot i holds the i-th modality, where it has rows."""
        rows = tally.rows
        if not rows:
            return
        before = self._draws
        draws = tally.switches + 1 if self._by_batch else rows
        for slot, count in enumerate(tally.counts):
            if count:
                self._new_counts[slot] += count
                self._tokens[slot] += tally.tokens[slot]
                self._last_picked_step[slot] = self._step
                self._total_picked[slot] = before + min(draws, tally.last[slot] + 1)
        self._total += rows
        self._draws = before + draws
        self._unpaired += rows - draws
        self._order.extend(tally.indices)
        if self._previous == _EMPTY:
            self._unpaired += 1
        elif tally.ends[0] != self._previous:
            self._switches += 1
        self._switches += tally.switches
        self._previous = tally.ends[1]

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
        self._shares.set_shares(target_shares(checked), self._total)
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

    # -- the end of a step ---------------------------------------------------------------------------------------

    def end_step(self, step: int) -> None:
        """Note the end of a step that is not a log step: what comes now belongs to the next one."""
        if step != self._step:
            self._slots.settle(self._step, step)
        self._step = step + 1

    def drain_measurements(self, step: int | None = None) -> list[float]:
        """End the interval with `step` and return its measurements, flat.

        Args:
            step: The step that ends; by default the one after the last drained.

        Returns:
            float [sums + peaks] in the order of `Layout(MIXING, modalities)`.
        """
        if step is None:
            step = self._step
        if step != self._step:
            self._slots.settle(self._step, step)
        shares, total = self._shares, self._total
        picks = total - self._total_drained
        if picks:
            shares.drain(picks, total)
            self._total_drained = total
        slots, starvation, draws = self._slots, self._starvation, self._draws
        active = slots.active
        last = self._last_picked_step if slots.is_full else slots.active_last_picks()
        # The order of Layout(MIXING), by the rows' measures: the sums, then the one peak, staleness_max. The share of a
        # modality has no measure of its own, and an age is that of catalogue.mixing_rows.
        values: list[float] = [
            picks,
            active,
            self._restarts,
            active * step - sum(last),
            self._switches,
            picks - self._unpaired,
            *shares.counts,
            *shares.targets,
            *self._tokens,
            starvation.count(draws, self._modality_index) if draws > starvation.earliest and self._judged else 0.0,
            *self._order.drain(),
            step - min(last) if last else ABSENT,
        ]
        self._restarts = self._switches = self._unpaired = 0.0
        self._tokens = [0.0] * len(self._tokens)
        self._step = step + 1
        return values

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
            "counts": list(self._shares.counts),
            "targets": list(self._shares.targets),
            "previous": None if self._previous == _EMPTY else self.modalities[self._previous],
            "last_picked_step": list(self._last_picked_step),
            "modality_for_reader": list(self._modality_for_reader),
            "surprise": self._starvation.surprises(self._draws),
            "interval": {
                "picks": self._total - self._total_drained,
                "unpaired": self._unpaired,
                "restarts": self._restarts,
                "switches": self._switches,
                **self._shares.interval_state(self._total),
                "tokens": list(self._tokens),
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
        self._total_picked = self._starvation.total_picked
        restore_slots(state, self._index, slots, self._starvation)
        interval = state["interval"]
        self._shares.load(state["counts"], state["targets"], interval)
        self._total = self._draws = 0.0
        self._expect()
        self._total_drained = -interval["picks"]
        if interval["picks"]:
            self._recent.append(int(interval["picks"]))  # the order begins anew, in an interval that has picks
        self._unpaired = interval["unpaired"]
        self._restarts = interval["restarts"]
        self._switches = interval["switches"]
        self._tokens = interval["tokens"]

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
