"""Judge whether the mix drifts from its targets, by a test that holds however often and whenever one looks.

H0: each pick is drawn by the target shares in force at it. Against it stands a bet: a mixture over all other shares,
which is the product of predictive over target probabilities, pick by pick (Robbins 1970; for multinomial counts Lindon
and Malek 2022, "Anytime-valid inference for multinomial count data"). Under H0 it is a martingale that begins at 1, so
the chance that it ever reaches x is at most 1/x (Ville 1939): what is reported as chance holds at any look.

A drift may begin late, when a bet on the whole run has lost too much to notice: so one bet begins at each of a grid of
steps, all with a share of the stake (a mixture over change points, which is an e-process too; the e-detectors of Shin,
Ramdas and Rinaldo 2022 are its sums, with a bound on the time between false alarms instead of their chance).

Targets that change are followed: the bet is on each modality's ratio of realised to expected picks. Picks of ranks with
other targets are judged by the shares of all together, which only makes the bet lose more under H0, and so does a mixer
that is steadier than chance. The bet is strict where a look begins at the run's beginning; a ring that has overwritten
its oldest steps is a look at the rest alone.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from operator import add, mul, truediv

from otel_train.diagnose.finding import Finding, Severity
from otel_train.how_far import tell
from otel_train.native import core
from otel_train.read.column_values import MOST_SOURCES, beside
from otel_train.read.curve_points import ends_of, exact_sum
from otel_train.read.history import History, MixInterval
from otel_train.read.mix import Mix

ALPHA = 1e-3
"""The chance of a false alarm in a run, however long and however often looked at."""
STRENGTH = 30.0
"""Weight of the prior, in picks. It spreads a share of 0.5 by 9 percentage points, the size of drift that matters:
the bet on such a one wins soonest. The bound on the chance holds for any value."""
NEGLIGIBLE = 0.01
"""A drift of every share by less than a percentage point is not a finding, however certain."""
_FIRST_STAKE = 0.5
"""Part of the stake that is bet on the run as a whole; the later beginnings share the rest."""
_GRID = 8
"""Beginnings of bets for each doubling of the number of looks."""
_BLOCK_PICKS = 32
"""Intervals are looked at together until they have so many picks ..."""
_BLOCKS = 256
"""... and after each so many looks twice as many intervals, so that the work grows little with a run's length."""
_AT_ONCE = 1 << 15
"""Intervals that are looked at together for the beginning of a drift."""
_ZERO = 1e-9
"""Bound below which a share counts as 0: undoing a decay leaves rounding errors."""


class Bets:
    """Bets that the shares differ from their targets, each from some interval on."""

    def __init__(self) -> None:
        self.begins: list[int] = []
        """The interval that each begins with."""
        self.stakes: list[float] = []
        """Part of the stake that each has."""
        self.logs = array("d")
        """Natural logarithms of the present values of a stake of 1."""
        self._counts, self._expected = array("d"), array("d")
        """Picks of each modality since a bet's beginning, and those that the targets expect: a bet's side by side."""

    def begin(self, interval: int, stake: float, width: int) -> None:
        """Begin a bet."""
        self.begins.append(interval)
        self.stakes.append(stake)
        self.logs.append(0.0)
        for counts in (self._counts, self._expected):
            counts.frombytes(bytes(8 * width))

    def take(self, picks: array[float], shares: array[float]) -> None:
        """Bet on some intervals' picks by the counts before them, then count them."""
        taken = 0
        if core is not None and len(picks) <= MOST_SOURCES:
            taken = core.take_bets(len(picks), STRENGTH, picks, shares, self._counts, self._expected, self.logs)
        for bet in range(taken, len(self.logs)):
            self._take(bet, picks, shares)

    def _take(self, bet: int, picks: Sequence[float], shares: Sequence[float]) -> None:
        own = slice(bet * len(picks), (bet + 1) * len(picks))
        counts, expected = self._counts[own], self._expected[own]
        total = math.fsum(counts) + STRENGTH
        tilted = [
            share * (STRENGTH * share + count) / (STRENGTH * share + expected) if share else 0.0
            for share, count, expected in zip(shares, counts, expected, strict=True)
        ]
        scale = total / math.fsum(tilted)
        number = math.fsum(picks)
        # The Dirichlet-multinomial's probability over the multinomial's: the orders of the picks cancel.
        gain = math.lgamma(total) - math.lgamma(total + number)
        for pick, share, tilt in zip(picks, shares, tilted, strict=True):
            if pick:
                gain += math.lgamma(scale * tilt + pick) - math.lgamma(scale * tilt) - pick * math.log(share)
        self.logs[bet] += gain
        self._counts[own] = array("d", map(add, counts, picks))
        self._expected[own] = array("d", map(add, expected, map(number.__mul__, shares)))


class MixTest:
    """The test, interval by interval; `add` them in order and look whenever you like."""

    def __init__(self) -> None:
        self.intervals = Mix(0)
        self.log_evidence = 0.0
        """The largest logarithm that the whole stake has had: chance is its inverse."""
        self.detected: int | None = None
        """The interval after which the chance was below `ALPHA` for the first time."""
        self.best = 0
        """The interval after which the evidence was largest."""
        self._looked = self._taken = 0
        """Intervals that were looked at, and those that were taken."""
        self._waiting = 0.0
        """Picks of those between."""
        self._blocks = 0
        self._bets = Bets()

    def add(self, interval: MixInterval) -> None:
        """Take the next interval; small ones are looked at together, and the later the more of them."""
        self.intervals.append(interval)
        self._take(math.fsum(interval.picks))

    def add_all(self, intervals: Mix) -> None:
        """Take all intervals of a run, before any others."""
        self.intervals = intervals
        waiting, together = 0.0, 1
        for taken, total in enumerate(intervals.totals(), 1):
            waiting += total
            if waiting >= _BLOCK_PICKS and taken - self._looked >= together:
                self._taken, waiting = taken, 0.0
                self.look()
                tell("picks tested", taken, len(intervals))
                together = self._together()
        tell("picks tested", 1, 1)
        self._taken, self._waiting = len(intervals), waiting

    def _take(self, picks: float) -> None:
        self._taken += 1
        self._waiting += picks
        if self._waiting >= _BLOCK_PICKS and self._taken - self._looked >= self._together():
            self.look()

    def _together(self) -> int:
        """Return how many intervals are looked at together at least."""
        return int(2 ** (self._blocks // _BLOCKS))

    def look(self) -> None:
        """Test the intervals since the last look; `add` does so by itself now and then."""
        if self._looked == self._taken:
            return
        first, self._looked, self._waiting = self._looked, self._taken, 0.0
        block = self.intervals[first : self._taken]
        strange = first_impossible(block) is not None
        picks, shares = joined(block)
        self._blocks += 1
        if strange:
            evidence = math.inf
        elif math.fsum(picks) and math.fsum(shares):
            self._begin(first, len(picks))
            self._bets.take(picks, shares)
            evidence = self._evidence()
        else:
            return
        if evidence > self.log_evidence:
            self.log_evidence, self.best = evidence, self._taken - 1
        if self.detected is None and evidence >= -math.log(ALPHA):
            self.detected = self._taken - 1

    def _begin(self, interval: int, width: int) -> None:
        """Begin a bet where the grid has one; it depends on nothing but the number of looks."""
        number = len(self._bets.begins)
        if not number:
            self._bets.begin(interval, _FIRST_STAKE, width)
        elif self._blocks % max(1, 2 ** (self._blocks.bit_length() - 1) // _GRID) == 0:
            self._bets.begin(interval, (1 - _FIRST_STAKE) / (number * (number + 1)), width)

    def _evidence(self) -> float:
        """Return the logarithm of the whole stake; what is not bet yet is still there."""
        stakes = self._bets.stakes
        idle: float = max(0.0, 1 - math.fsum(stakes))
        logs: list[float] = list(map(add, map(math.log, stakes), self._bets.logs))
        largest = max(0.0, *logs)
        return largest + math.log(idle * math.exp(-largest) + math.fsum(math.exp(log - largest) for log in logs))

    @property
    def chance(self) -> float:
        """Bound on the probability of so much evidence, at any time of the run, if picks were drawn by the targets."""
        return math.exp(-self.log_evidence)

    def change(self) -> int:
        """Return the interval with which the drift most likely began (the CUSUM estimate; Page 1954)."""
        seen = self.intervals[: self.best + 1]
        if math.isinf(self.log_evidence):
            return first_impossible(seen) or 0
        bet = self._bets.begins[self._bets.logs.index(max(self._bets.logs))]
        ratios = _ratios(seen[bet:] if bet < len(seen) else seen)
        score = largest = 0.0
        begin = self.best
        for end in range(self.best + 1, 0, -_AT_ONCE):
            first = max(0, end - _AT_ONCE)
            for index, own in zip(range(end - 1, first - 1, -1), _scores(seen[first:end], ratios)[::-1], strict=True):
                score += own
                if score > largest:
                    largest, begin = score, index
        return begin


def test_mix(intervals: Sequence[MixInterval]) -> MixTest:
    """Return the test after these intervals."""
    test = MixTest()
    test.add_all(Mix.of(intervals))
    test.look()
    return test


test_mix.__test__ = False  # type: ignore[attr-defined]  # pytest must not take it for one of its own


def joined(intervals: Mix) -> tuple[array[float], array[float]]:
    """Return the picks of several intervals together, and their target shares, which add up to 1."""
    totals = intervals.totals()
    targets = []
    for column in intervals.shares:
        shares = column
        if ends_of(column)[0] <= _ZERO:
            shares = array("d", [share if share > _ZERO else 0.0 for share in column])
        targets.append(_sum_of_products(shares, totals))
    whole = math.fsum(targets) or 1.0
    return array("d", map(exact_sum, intervals.picks)), array("d", [target / whole for target in targets])


def _sum_of_products(values: array[float], others: array[float]) -> float:
    if core is not None:
        total: float = core.dot(values, others)
        if math.isfinite(total):
            return total
    return math.fsum(map(mul, values, others))


def find_drift(history: History) -> Finding:
    """Return whether the picks drift from the targets of the mix."""
    check = "mix drift"
    if not history.mix:
        why = "the source has no exact picks; the verdict rests on the divergence and its range alone"
        return Finding(check=check, severity=Severity.UNKNOWN, summary=why)
    if history.facts.get("mixing.scope") == "cluster" and len(history.ranks) < history.world_size:
        why = "the ranks hold the mix together only, and the source has the picks of some"
        return Finding(check=check, severity=Severity.UNKNOWN, summary=why)
    mix = Mix.of(history.mix)
    test = test_mix(mix.drawn())
    first, last = mix.steps[0], mix.steps[-1]
    totals = mix.totals()
    picks, draws = math.fsum(totals), math.fsum(map(truediv, totals, mix.rows))
    in_draws = f", in {draws:.0f} draws," if draws < picks else ""
    looked = f"{picks:.0f} picks{in_draws} of steps {first} to {last} against the targets in force"
    if test.detected is None:
        summary = "the picks are as the targets have them"
        return Finding(
            check=check, severity=Severity.OK, summary=summary, chance=min(1.0, test.chance), evidence=(looked,)
        )
    begin = test.change()
    since = mix[begin : test.best + 1]
    lines, largest = _lines(since, history.modalities)
    worst = max(NEGLIGIBLE, largest) > NEGLIGIBLE or math.isinf(test.log_evidence)
    return Finding(
        check=check,
        severity=Severity.WARNING if worst else Severity.OK,
        summary=f"the mix drifts from its targets, by {100 * largest:.1f} percentage points at most"
        + ("" if worst else ", which is too little to matter"),
        since_step=mix.steps[begin],
        chance=test.chance,
        evidence=(looked, f"certain enough (chance under {ALPHA:g}) at step {mix.steps[test.detected]}", *lines),
        cause="slots hold too few streams of a modality, or the mixer uses other weights than are configured"
        if worst
        else "",
        remedy="Compare slots and streams of the modalities named here with their weights." if worst else "",
    )


def _lines(intervals: Mix, modalities: Sequence[str]) -> tuple[list[str], float]:
    """Return realised and target shares in words, the modality that lacks most first, and the largest difference."""
    counts, targets = joined(intervals)
    total = math.fsum(counts)
    realised = [count / total for count in counts]
    named = sorted(zip(realised, targets, modalities, strict=True), key=lambda entry: entry[0] - entry[1])
    lines = [f"{name}: {100 * got:.1f} % of the picks instead of {100 * aim:.1f} %" for got, aim, name in named]
    return lines, max(abs(got - aim) for got, aim, _ in named)


def first_impossible(intervals: Mix) -> int | None:
    """Return the first interval with picks of a modality that has no share; None without one."""
    first = [
        next(at for at, pair in enumerate(zip(picks, shares, strict=True)) if _is_impossible(*pair))
        for picks, shares in zip(intervals.picks, intervals.shares, strict=True)
        if shares and ends_of(shares)[0] <= _ZERO and any(map(_is_impossible, picks, shares))
    ]
    return min(first, default=None)


def _is_impossible(pick: float, share: float) -> bool:
    return bool(pick) and share <= _ZERO


def _ratios(intervals: Mix) -> list[float]:
    """Return each modality's ratio of realised to expected picks, held away from 0 by half a pick."""
    counts, shares = joined(intervals)
    total = math.fsum(counts)
    return [(count + 0.5) / (share * total + 0.5) for count, share in zip(counts, shares, strict=True)]


def _scores(intervals: Mix, ratios: Sequence[float]) -> Sequence[float]:
    """Return how much more likely each interval's picks are by the tilted shares than by the targets, as logarithms."""
    logs = list(map(math.log, ratios))
    if core is not None and 1 <= len(ratios) <= MOST_SOURCES:
        scores, columns = array("d", bytes(8 * len(intervals))), map(beside, (intervals.picks, intervals.shares))
        of_source = array("d", ratios), array("d", logs)
        if core.tilts(len(intervals), len(ratios), *columns, intervals.totals(), *of_source, scores):
            return scores
    tilted = [math.log(math.fsum(map(mul, shares, ratios)) or 1.0) for shares in intervals.share_rows()]
    totals = intervals.totals()
    pairs = zip(intervals.pick_rows(), totals, tilted, strict=True)
    return [math.fsum(map(mul, picks, logs)) - total * whole for picks, total, whole in pairs]
