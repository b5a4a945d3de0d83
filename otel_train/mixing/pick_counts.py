"""Count picks and derive an interval's measurements: what a mixing meter does at each step, and the core in its stead.

native/meter.c has `PickCounts.pick` and `PickCounts.drain_measurements` over the same arrays and attributes.
"""

from __future__ import annotations

from array import array
from typing import Any

from otel_train.catalogue import ABSENT
from otel_train.exceptions import ConfigurationError
from otel_train.mixing.argument_checks import checked_pick
from otel_train.mixing.decayed_shares import DecayedShares
from otel_train.mixing.mixing_unit import MixingUnit
from otel_train.mixing.pick_order import NO_SIGNS, extended, signs_of, value_of_batch
from otel_train.mixing.reader_slots import EMPTY as _EMPTY
from otel_train.mixing.reader_slots import ReaderSlots
from otel_train.mixing.starvation import Starvation
from otel_train.mixing.tally import Tally
from otel_train.native import core
from otel_train.native.records import PICKS, Picks
from otel_train.training_counter import TAG_ROWS, TrainingCounter
from otel_train.untraced import untraced


@untraced
class PickCounts(TrainingCounter, Picks, counting="pick pick_batch restart", instead=TAG_ROWS):
    """Counts of a rank's picks.

    Args:
        slots: Number of reader slots, K.
        modalities: Number of modalities.
        horizon: Picks after which a pick's part in the divergence has decayed to 1/e.
        step: The step that the first picks belong to.
        unit: What is drawn, and over which ranks it is judged.
    """

    def __init__(self, slots: int, modalities: int, *, horizon: float, step: int, unit: MixingUnit) -> None:
        self._horizon, self._step = horizon, step
        self._by_batch, self._judged = unit.by_batch, unit.by_rank
        # A pick writes the arrays of the slots, of the starvation and of the shares itself: a call would cost as much.
        self._slots = ReaderSlots(slots, step)
        self._starvation = Starvation(slots)
        self._shares = DecayedShares(modalities, horizon)
        self._tokens = array("d", bytes(8 * modalities))
        self._name_arrays()
        # Counts that go into a record are floats from the beginning: packing need not convert them.
        self._total = self._total_drained = self._weighed = self._draws = 0.0
        self._order, self._ordered = 0, False
        self._restarts = self._switches = 0.0
        self._previous = _EMPTY
        self._unpaired = 0.0

    def _name_arrays(self) -> None:
        """Name the arrays that a pick writes, for itself and for the core."""
        slots, starvation, shares = self._slots, self._starvation, self._shares
        self._last_picked_step, self._modality_index = slots.last_picked_step, slots.modality_index
        self._modality_for_reader = slots.modality_for_reader
        self._total_picked, self._new_counts = starvation.total_picked, shares.new_counts
        of_slots = (self._last_picked_step, self._modality_index, self._total_picked)
        surprises = (starvation.surprise, starvation.miss_surprise)
        of_sources = (shares.counts, shares.targets, shares.new_counts, shares.shares, shares.early_targets)
        self._bind((*of_slots, *surprises), (self._tokens, *of_sources), _pick_in_python)

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
        self._order = extended(self._order, modality)
        if rows != 1:
            self._order = extended(self._order, rows)
        self._ordered = True
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
        self._order, self._ordered = extended(self._order, value_of_batch(tally.indices)), True
        if self._previous == _EMPTY:
            self._unpaired += 1
        elif tally.ends[0] != self._previous:
            self._switches += 1
        self._switches += tally.switches
        self._previous = tally.ends[1]

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
            shares.drain(picks, total - self._weighed)
            self._weighed = self._total_drained = total
        active, last = self._active, self._slots.active_last_picks()
        starved = 0.0
        if self._draws > self._earliest and self._judged:
            starved, self._earliest = self._starvation.count(self._draws, self._modality_index)
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
            starved,
            *(signs_of(self._order) if self._ordered else NO_SIGNS),
            float(step - min(last)) if last else ABSENT,
        ]
        self._restarts = self._switches = self._unpaired = 0.0
        self._ordered = False
        self._tokens[:] = array("d", bytes(8 * len(self._tokens)))
        self._step = step + 1
        return values

    # -- state ---------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in PICKS}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name in PICKS:
            setattr(self, name, state.pop(name))
        super().__setstate__(state)
        self._name_arrays()


_pick_in_python = PickCounts.pick
if core is not None:
    PickCounts.pick = core.Picks.pick  # type: ignore[method-assign]
    PickCounts.drain_measurements = core.Picks.drain_measurements  # type: ignore[method-assign]
