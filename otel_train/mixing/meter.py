"""Count what a mixer does at the pick site: all seven mixing metrics, for our dataset or a loader of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from otel_train.catalogue import ABSENT, MIXING, Layout, Metric
from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.mixing.weights import checked_weights, target_shares

EventSink = Callable[[dict[str, object]], None]
"""Takes one event; see `StreamMixingDataset` and `StateLedger` for their kinds."""

STARVED_SURPRISE = -math.log(1e-6)
"""A reader is starved when not being picked for so long has a probability under 1e-6."""
_EMPTY = -1


class MixingMeter:
    """Measures of one rank's mixer.

    A loader of the user's own opens its slots, says which slot each row came from, and drains once a log step:

        meter = MixingMeter(4, ["code", "prose"], {"code": 1, "prose": 3})
        meter.open(0, "code")
        meter.pick(0, tokens=512)
        meter.drain_step_metrics()

    Args:
        slots: Number of reader slots, K.
        modalities: All modalities of the job, in the same order on each rank.
        weights: Weight by modality; the target shares are these, normalised.
        horizon: Picks after which a pick's part in the divergence has decayed to 1/e.
        step: The step that the first picks belong to.
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
        events: EventSink | None = None,
    ) -> None:
        if slots < 0:
            raise ConfigurationError(f"mixing.readers must not be negative, got {slots}")
        if len(set(modalities)) != len(modalities) or not modalities:
            raise ConfigurationError(f"mixing.modalities must be distinct and at least one, got {list(modalities)}")
        if not horizon > 0:
            raise ConfigurationError(f"mixing.horizon must be positive, got {horizon}; 4096 picks is the default")
        self.modalities = tuple(modalities)
        self.horizon = float(horizon)
        self._layout = Layout(self.metrics, self.modalities)
        self._index = {modality: index for index, modality in enumerate(self.modalities)}
        self._events = events
        self._step = step
        self._last_picked_step: list[int] = [step] * slots
        self._modality_for_reader: list[str | None] = [None] * slots
        self._modality_index = [_EMPTY] * slots
        self._empty = slots
        """How many slots hold no stream."""
        # Counts that go into a record are floats from the beginning: packing need not convert them.
        self._total = 0.0
        """Picks so far; the other numbers of picks are what it was at some time."""
        self._total_drained = 0.0
        self._total_weighed = 0.0
        """At the last change of the weights, or at the last drain where that came later."""
        self._total_picked = [0.0] * slots
        """At each slot's last pick, or at the last call of `_expect`."""
        self._total_expected = 0.0
        """At the last call of `_expect`."""
        self._surprise = [0.0] * slots
        """For each slot -log of the probability of the run of misses it was in at the last call of `_expect`."""
        self._miss_surprise = [0.0] * slots
        """What one more miss adds to it."""
        self._total_starves = 0.0
        """No reader is starved before that many picks."""
        self._counts = [0.0] * len(self.modalities)
        self._targets = [0.0] * len(self.modalities)
        self._new_counts = [0] * len(self.modalities)
        self._early_targets: list[float] | None = None
        """The targets of the interval's picks under weights that have changed since."""
        self._tokens = [0.0] * len(self.modalities)
        self._restarts = self._switches = 0.0
        self._previous = _EMPTY
        self._has_previous = False
        self._shares: list[float] = []
        self._weights: dict[str, float] = {}
        self.set_weights(weights)

    @property
    def facts(self) -> dict[str, str | float]:
        """How it is set up, for people who look at a ring."""
        return {"mixing.readers": len(self._last_picked_step), "mixing.horizon": self.horizon}

    # -- what happens at the pick site ---------------------------------------------------------------------------

    def pick(self, slot: int, rows: int = 1, tokens: int = 0) -> None:
        """Count `rows` picks of the reader in `slot`, whose rows hold `tokens` tokens together.

        Raises:
            ConfigurationError: The slot holds no stream; `open` it first.
        """
        modality = self._modality_index[slot]
        if modality == _EMPTY:
            raise ConfigurationError(f"slot {slot} was picked but holds no stream; call open(slot, modality) first")
        self._new_counts[modality] += rows
        self._tokens[modality] += tokens
        self._last_picked_step[slot] = self._step
        self._total_picked[slot] = self._total = self._total + rows
        if modality != self._previous:
            if self._previous != _EMPTY:
                self._switches += 1
            self._previous = modality

    def log_pick(self, slot: int, stream: str, tokens: int) -> None:
        """Count one pick and write its event, where events are wanted."""
        self.pick(slot, 1, tokens)
        if self._events is not None:
            self._events(
                {
                    "event": "pick",
                    "step": self._step,
                    "slot": slot,
                    "stream": stream,
                    "modality": self._modality_for_reader[slot],
                    "tokens": tokens,
                }
            )

    def open(self, slot: int, modality: str, stream: str = "") -> None:
        """Note that an empty slot got a stream: its reader's age counts from the present step."""
        self._set_modality(slot, modality)
        self._last_picked_step[slot] = self._step
        self._surprise[slot] = 0.0
        self._emit_slot("open", slot, stream)

    def restart(self, slot: int, modality: str | None = None, stream: str = "") -> None:
        """Note that a slot's stream ran out and another one took its place, or that it began again."""
        self._restarts += 1
        if modality is not None and modality != self._modality_for_reader[slot]:
            self._set_modality(slot, modality)
        self._emit_slot("restart", slot, stream)

    def close(self, slot: int, stream: str = "") -> None:
        """Note that a slot's stream ran out and the slot stays empty."""
        self._emit_slot("close", slot, stream)
        self._modality_for_reader[slot] = None
        self._modality_index[slot] = _EMPTY
        self._expect()

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Change the weights; picks from now on count towards their shares.

        Raises:
            ConfigurationError: A weight breaks a rule; the message names it.
        """
        checked = checked_weights(weights, self.modalities)
        if checked == self._weights:
            return
        if self._total > self._total_weighed:
            self._early_targets = self._new_targets()
        self._total_weighed = self._total
        self._weights = checked
        self._shares = target_shares(checked)
        self._expect()
        if self._events is not None:
            self._events({"event": "weights", "step": self._step, "weights": dict(checked)})

    def _set_modality(self, slot: int, modality: str) -> None:
        if modality not in self._index:
            raise ConfigurationError(f"slot {slot}: unknown modality {modality!r}; known: {', '.join(self.modalities)}")
        self._modality_for_reader[slot] = modality
        self._modality_index[slot] = self._index[modality]
        self._expect()

    def _emit_slot(self, event: str, slot: int, stream: str) -> None:
        if self._events is not None:
            self._events(
                {
                    "event": event,
                    "step": self._step,
                    "slot": slot,
                    "stream": stream,
                    "modality": self._modality_for_reader[slot],
                }
            )

    def _new_targets(self) -> list[float]:
        """Return the target shares added up over the interval's picks, each at those in force at the pick."""
        since = self._total - self._total_weighed
        early = self._early_targets or [0.0] * len(self._shares)
        return [before + since * share for before, share in zip(early, self._shares, strict=True)]

    def _surprise_of(self, slot: int) -> float:
        """Return -log of the probability of the run of misses that a slot's reader is in."""
        picked = self._total_picked[slot]
        before = self._surprise[slot] if picked == self._total_expected else 0.0
        misses = self._total - picked
        return before + misses * self._miss_surprise[slot] if misses else before

    def _expect(self) -> None:
        """Derive how surprising one miss is for each reader: its modality's share, in equal parts to its readers."""
        self._surprise = [self._surprise_of(slot) for slot in range(len(self._surprise))]
        self._total_picked = [self._total] * len(self._surprise)
        self._total_expected = self._total
        self._total_starves = 0.0
        self._empty = self._modality_index.count(_EMPTY)
        readers = [self._modality_index.count(index) for index in range(len(self.modalities))]
        reachable = math.fsum(share for share, count in zip(self._shares, readers, strict=True) if count)
        for slot, modality in enumerate(self._modality_index):
            if modality == _EMPTY or not reachable:
                self._miss_surprise[slot] = 0.0
                continue
            chance = self._shares[modality] / reachable / readers[modality]
            self._miss_surprise[slot] = -math.log1p(-chance) if chance < 1 else math.inf

    def _count_starved(self) -> int:
        """Return how many readers are starved, and note when the next could be: a pick only puts that off."""
        starved = 0
        earliest = math.inf
        for slot, modality in enumerate(self._modality_index):
            if modality == _EMPTY:
                continue
            surprise, one_more = self._surprise_of(slot), self._miss_surprise[slot]
            if surprise > STARVED_SURPRISE:
                starved += 1
            elif one_more:
                earliest = min(earliest, self._total + (STARVED_SURPRISE - surprise) / one_more)
        self._total_starves = 0.0 if starved else earliest
        return starved

    # -- the end of a step ---------------------------------------------------------------------------------------

    def end_step(self, step: int) -> None:
        """Note the end of a step that is no log step: what comes now belongs to the next one."""
        if step != self._step:
            self._settle(step)
        self._step = step + 1

    def _settle(self, step: int) -> None:
        """Give what was picked and opened since the last step that ended to the step that ends now.

        Steps may be told of with a stride, and a job may begin at any of them: which step is made is known at its end.
        """
        expected = self._step
        self._last_picked_step = [step if picked == expected else picked for picked in self._last_picked_step]

    def drain_measurements(self, step: int | None = None) -> list[float]:
        """End the interval with `step` and return what it measured, flat.

        Args:
            step: The step that ends; by default the one after the last drained.

        Returns:
            float [sums + peaks] in the order of `Layout(MIXING, modalities)`.
        """
        if step is None:
            step = self._step
        if step != self._step:
            self._settle(step)
        total = self._total
        picks = total - self._total_drained
        if picks:
            keep = math.exp(-picks / self.horizon)
            since = total - self._total_weighed
            counts, targets, new_counts = self._counts, self._targets, self._new_counts
            for index, share in enumerate(self._shares):
                counts[index] = counts[index] * keep + new_counts[index]
                targets[index] = targets[index] * keep + since * share
                new_counts[index] = 0
            if self._early_targets is not None:
                self._targets = [at + early for at, early in zip(targets, self._early_targets, strict=True)]
                self._early_targets = None
            self._total_drained = self._total_weighed = total
        last = self._last_picked_step
        if self._empty:
            last = [at for at, modality in zip(last, self._modality_index, strict=True) if modality != _EMPTY]
        active = float(len(last))
        # The order of Layout(MIXING): see the rows' measures; the share of a modality has none of its own.
        values: list[float] = [
            picks,
            active,
            self._restarts,
            active * step - sum(last),
            self._switches,
            picks if self._has_previous or not picks else picks - 1,
            *self._counts,
            *self._targets,
            *self._tokens,
            self._count_starved() if total > self._total_starves else 0.0,
            step - min(last) if last else ABSENT,
        ]
        self._restarts = self._switches = 0.0
        self._tokens = [0.0] * len(self._shares)
        self._has_previous = self._previous != _EMPTY
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

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved at a drained step: the decayed counts, the ages and the pick before."""
        return {
            "modalities": list(self.modalities),
            "horizon": self.horizon,
            "step": self._step,
            "counts": list(self._counts),
            "targets": list(self._targets),
            "previous": self._previous,
            "last_picked_step": list(self._last_picked_step),
            "modality_for_reader": list(self._modality_for_reader),
            "surprise": [self._surprise_of(slot) for slot in range(len(self._surprise))],
            "interval": self._interval_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            StateMismatchError: It was saved with other modalities or another number of slots.
        """
        self._check_modalities(state)
        if len(state["last_picked_step"]) != len(self._last_picked_step):
            raise StateMismatchError(
                f"mixing.readers is {len(self._last_picked_step)}, the saved state has "
                f"{len(state['last_picked_step'])}; use the saved number, or load the states of all ranks"
            )
        self.horizon = float(state["horizon"])
        self._step = int(state["step"])
        self._counts = list(state["counts"])
        self._targets = list(state["targets"])
        self._previous = int(state["previous"])
        self._last_picked_step = list(state["last_picked_step"])
        self._modality_for_reader = list(state["modality_for_reader"])
        self._surprise = list(state["surprise"])
        self._total_picked = [0.0] * len(self._surprise)
        self._total = self._total_expected = 0.0
        self._modality_index = [
            _EMPTY if modality is None else self._index[modality] for modality in self._modality_for_reader
        ]
        self._expect()
        self._load_interval_state(state["interval"])

    def load_resharded(self, states: Sequence[Mapping[str, Any]], world_size: int) -> None:
        """Take this rank's equal part of the decayed counts of all ranks of a job of another world size.

        The cluster-wide divergence goes on unchanged; ages begin again with the slots, which are opened anew.
        """
        for state in states:
            self._check_modalities(state)
        self.horizon = float(states[0]["horizon"])
        self._step = int(states[0]["step"])
        self._counts = [math.fsum(column) / world_size for column in zip(*(s["counts"] for s in states), strict=True)]
        self._targets = [math.fsum(column) / world_size for column in zip(*(s["targets"] for s in states), strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        # A DataLoader's worker gets a copy that counts nothing; the sink of events stays with the training process.
        return {**self.__dict__, "_events": None}

    def _interval_state(self) -> dict[str, Any]:
        return {
            "picks": self._total - self._total_drained,
            "restarts": self._restarts,
            "switches": self._switches,
            "new_counts": list(self._new_counts),
            "new_targets": self._new_targets(),
            "tokens": list(self._tokens),
            "has_previous": self._has_previous,
        }

    def _load_interval_state(self, state: Mapping[str, Any]) -> None:
        self._total_weighed = 0.0
        self._total_drained = -state["picks"]
        self._restarts = state["restarts"]
        self._switches = state["switches"]
        self._new_counts = list(state["new_counts"])
        self._early_targets = list(state["new_targets"])
        self._tokens = list(state["tokens"])
        self._has_previous = state["has_previous"]

    def _check_modalities(self, state: Mapping[str, Any]) -> None:
        if tuple(state["modalities"]) != self.modalities:
            raise StateMismatchError(
                f"mixing.modalities is {list(self.modalities)}, the saved state has {state['modalities']}; "
                "give the job the same modalities"
            )
