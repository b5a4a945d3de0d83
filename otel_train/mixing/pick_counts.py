"""Count picks and derive an interval's measurements: what a mixing meter does at each step, and the core in its stead.

native/meter.c has `PickCounts.pick` and `PickCounts.drain` over the same arrays and attributes.
"""

from __future__ import annotations

import math
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
from otel_train.untraced import untraced


@untraced  # the core calls it, and a user's call meets it alone
class PickCounts(Picks):
    """Counts of a rank's picks.

    Args:
        slots: Number of reader slots, K.
        modalities: Number of modalities.
        horizon: Picks after which a pick's part in the divergence has decayed to 1/e.
        step: The step that the first picks belong to.
        unit: What is drawn, and over which ranks it is judged.
    """

    def __init__(self, slots: int, modalities: int, *, horizon: float, step: int, unit: MixingUnit) -> None:
        self.horizon, self.step = horizon, step
        self.by_batch, self.judged = unit.by_batch, unit.by_rank
        # A pick writes the arrays of the slots, of the starvation and of the shares itself: a call would cost as much.
        self.slots = ReaderSlots(slots, step)
        """Modality and last pick of each slot."""
        self.starvation = Starvation(slots)
        """Misses of each slot's reader."""
        self.shares = DecayedShares(modalities, horizon)
        """Decayed picks of each modality, and their targets."""
        self.tokens = array("d", bytes(8 * modalities))
        """Tokens of the interval by modality."""
        self._no_tokens = array("d", self.tokens)
        self._name_arrays()
        # Counts that go into a record are floats from the beginning: packing need not convert them.
        self.total = self.total_drained = self.weighed = self.draws = 0.0
        self.order, self.ordered = 0, False
        self.restarts = self.switches = 0.0
        self.previous = _EMPTY
        self.unpaired = 0.0

    def _name_arrays(self) -> None:
        """Name the arrays that a pick writes, for itself and for the core."""
        slots, starvation, shares = self.slots, self.starvation, self.shares
        self._last_picked_step, self._modality_index = slots.last_picked_step, slots.modality_index
        self._total_picked, self._new_counts = starvation.total_picked, shares.new_counts
        of_slots = (self._last_picked_step, self._modality_index, self._total_picked)
        surprises = (starvation.surprise, starvation.miss_surprise)
        of_sources = (shares.counts, shares.targets, shares.new_counts, shares.shares, shares.early_targets)
        self.bind((*of_slots, *surprises), (self.tokens, *of_sources), _pick_in_python)

    def set_shares(self, shares: list[float]) -> None:
        """Use these target shares for the picks from now on."""
        self.shares.set_shares(shares, self.since_weighed)
        self.weighed = self.total
        self.expect()

    def expect(self) -> None:
        """Note that slots, modalities or weights have changed."""
        self.starvation.expect(self.draws, self.shares.shares, self._modality_index)
        self.active, self.expected, self.earliest = self.slots.active, self.draws, -math.inf

    @property
    def since_weighed(self) -> float:
        """Picks since the last change of the shares, or since the last drain where that came later."""
        return self.total - self.weighed

    def begin_anew(self) -> None:
        """Forget the picks of all slots, as before a saved state is loaded."""
        self.total = self.draws = self.weighed = self.total_drained = 0.0
        self.starvation = Starvation(len(self.slots))
        self._name_arrays()

    # -- what happens at the pick site ---------------------------------------------------------------------------

    def pick(self, slot: int, rows: int = 1, tokens: float = 0) -> None:
        """Count picks; see `MixingMeter.pick`."""
        plain = type(slot) is int and type(rows) is int and type(tokens) is int
        if not (plain and slot >= 0 and 1 << 53 >= rows >= 0 <= tokens):
            slot, rows, tokens = checked_pick(slot, rows, tokens, len(self._modality_index))
        try:
            modality = self._modality_index[slot]
            total = self.total + rows
            if modality == _EMPTY:
                raise ConfigurationError(f"slot {slot} was picked but holds no stream; call open(slot, modality) first")
            self.tokens[modality] += tokens
        except (IndexError, OverflowError):
            checked_pick(slot, rows, tokens, len(self._modality_index))
            raise
        self._new_counts[modality] += rows
        self._last_picked_step[slot] = self.step
        self.total = total
        draws = rows and 1 if self.by_batch else rows
        self.draws = self._total_picked[slot] = self.draws + draws
        self.order = extended(self.order, modality)
        if rows != 1:
            self.order = extended(self.order, rows)
        self.ordered = True
        if modality != self.previous and rows:
            if self.previous != _EMPTY:
                self.switches += 1
            else:
                self.unpaired += 1
            self.previous = modality
        if draws != rows:
            self.unpaired += rows - draws

    def pick_batch(self, tally: Tally) -> None:
        """Count the rows of a batch, for a meter of which slot i holds the i-th modality, where it has rows."""
        rows = tally.rows
        if not rows:
            return
        before = self.draws
        draws = tally.switches + 1 if self.by_batch else rows
        for slot, count in enumerate(tally.counts):
            if count:
                self._new_counts[slot] += count
                self.tokens[slot] += tally.tokens[slot]
                self._last_picked_step[slot] = self.step
                self._total_picked[slot] = before + min(draws, tally.last[slot] + 1)
        self.total += rows
        self.draws = before + draws
        self.unpaired += rows - draws
        self.order, self.ordered = extended(self.order, value_of_batch(tally.indices)), True
        if self.previous == _EMPTY:
            self.unpaired += 1
        elif tally.ends[0] != self.previous:
            self.switches += 1
        self.switches += tally.switches
        self.previous = tally.ends[1]

    # -- the end of a step ---------------------------------------------------------------------------------------

    def end_step(self, step: int) -> None:
        """Note the end of a step that is not a log step: what comes now belongs to the next one."""
        if step != self.step:
            self.slots.settle(self.step, step)
        self.step = step + 1

    def drain(self, step: int | None = None) -> list[float]:
        """End the interval with `step` and return its measurements; see `MixingMeter.drain_measurements`."""
        if step is None:
            step = self.step
        if step != self.step:
            self.slots.settle(self.step, step)
        shares, total = self.shares, self.total
        picks = total - self.total_drained
        if picks:
            shares.drain(picks, self.since_weighed)
            self.weighed = self.total_drained = total
        active, last = self.active, self.slots.active_last_picks()
        starved = 0.0
        if self.draws > self.earliest and self.judged:
            starved, self.earliest = self.starvation.count(self.draws, self._modality_index)
        # The order of Layout(MIXING), by the rows' measures: the sums, then the one peak, staleness_max. The share of a
        # modality has no measure of its own, and an age is that of catalogue.mixing_rows.
        values: list[float] = [
            picks,
            active,
            self.restarts,
            active * step - sum(last),
            self.switches,
            picks - self.unpaired,
            *shares.counts,
            *shares.targets,
            *self.tokens,
            starved,
            *(signs_of(self.order) if self.ordered else NO_SIGNS),
            float(step - min(last)) if last else ABSENT,
        ]
        self.restarts = self.switches = self.unpaired = 0.0
        self.ordered = False
        self.tokens[:] = self._no_tokens
        self.step = step + 1
        return values

    # -- state ---------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {name: getattr(self, name) for name in PICKS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._name_arrays()


_pick_in_python = PickCounts.pick
if core is not None:
    PickCounts.pick = core.Picks.pick  # type: ignore[method-assign]
    PickCounts.drain = core.Picks.drain  # type: ignore[method-assign]
