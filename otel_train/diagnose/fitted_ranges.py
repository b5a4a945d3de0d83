"""Fit the healthy ranges of the mix to what a run draws: how many sources by which weights, how many draws, how.

The catalogue's ranges are those of a mixer that draws row by row from a few sources of like weights, for as long as the
divergence looks back. Elsewhere chance alone leads out of them, or a fault stays within. A range that the job has set
itself is left as it is. Each bound holds by chance but for once in `RUNS` runs, where the divergence's is by far safer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from otel_train.catalogue import MOST_COUNTED, HealthyRange, Ranges, healthy_range, rows
from otel_train.diagnose.alike_ranks import size_of_alike
from otel_train.read.curve_points import ends_of
from otel_train.read.history import History, mean, target_key

RUNS = 1000.0
_DEVIATIONS = 4.0
_QUANTILE = 4.75
"""Standard deviations above which a normal number is once in a million: the divergence is looked at at every step."""
_HORIZON = 4096.0
_LEAST_SHARE = 1e-12
"""A source of a smaller target share counts as one that has none."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Numbers of a run's draws, by which chance leads away from the targets."""

    targets: tuple[float, ...]
    """Target share of each source that has one."""
    ranks: float
    """Ranks that draw for themselves."""
    readers: float
    """Readers of each source on a rank; NaN where the source of the run does not tell."""
    number: float
    """Draws of these ranks together, over the run."""
    remembered: float
    """Number of draws without decay that chance spreads as much as the decayed ones."""
    by_step: float
    """Draws of a rank in an optimizer's step."""
    looks: float
    """Values that were looked at: steps times readers."""
    by_rank: bool
    """Whether a rank by itself holds the mix."""


def fitted_ranges(history: History, ranges: Ranges = healthy_range) -> Ranges:
    """Return the ranges of a run.

    Args:
        history: The run.
        ranges: Gives the range of a headline key as the job has it; one that is the catalogue's is fitted.
    """
    draws = _draws_of(history)
    fitted: dict[str, HealthyRange] = {}

    def bounds(key: str) -> HealthyRange:
        own, fit = ranges(key), _FITS.get(key)
        if draws is None or fit is None or own != healthy_range(key):
            return own
        if key not in fitted:
            exact = fit(draws, own)
            fitted[key] = replace(exact, low=_short(exact.low), high=_short(exact.high))
        return fitted[key]

    return bounds


def _short(bound: float) -> float:
    """Return a bound as people read it, to two digits."""
    return float(f"{bound:.2g}")


def _draws_of(history: History) -> Draws | None:
    """Return what a run has drawn; None where it has no picks, or its targets are not known."""
    cluster, facts, world = history.cluster, history.facts, max(1, history.world_size)
    newest = {name: cluster.last(target_key(name)) for name in history.modalities}
    targets = tuple(target for target in newest.values() if _LEAST_SHARE < target <= 1)
    picks = cluster.finite_values(rows.PICKS.wandb_key)
    if picks and not 1 <= ends_of(picks)[0] <= ends_of(picks)[1] < MOST_COUNTED:
        picks = [count for count in picks if 1 <= count < MOST_COUNTED]
    if not targets or not picks:
        return None
    rows_of_draw = max(1.0, _number(facts.get("mixing.unit_rows"), 1.0))
    alike = min(size_of_alike(history), world)
    horizon = _number(facts.get("mixing.horizon"), _HORIZON)
    total = squares = before = keep = drawn = 0.0
    for count in picks:
        if count != before:
            keep, drawn = math.exp(-count / world / horizon), count / rows_of_draw / alike
            before = count
        total, squares = total * keep + drawn, squares * keep * keep + drawn
    readers = _number(facts.get("mixing.readers"), math.nan) / len(history.modalities)
    every = max(1.0, _number(facts.get("telemetry.log_every"), 1.0))
    return Draws(
        targets=targets,
        ranks=world / alike,
        readers=readers if readers <= 1 or facts.get("mixing.unit") == "batch" else math.nan,
        number=math.fsum(picks) / rows_of_draw / alike,
        remembered=total * total / squares,
        by_step=mean(picks) / world / rows_of_draw / every,
        looks=len(picks) * world * max(1.0, 0.0 if math.isnan(readers) else readers) * len(targets),
        by_rank=facts.get("mixing.scope") != "cluster",
    )


def _number(fact: object, default: float) -> float:
    return float(fact) if isinstance(fact, int | float) and 0 < fact < math.inf else default


def _divergence(draws: Draws, own: HealthyRange) -> HealthyRange:
    """Let chance have its part: JSD is near chi-squared / (8 N ln 2), of N draws with a degree less than sources."""
    degrees = len(draws.targets) - 1
    if not degrees:
        return own
    # The quantile of chi-squared by Wilson and Hilferty 1931.
    spread = 2 / (9 * degrees)
    quantile = degrees * (1 - spread + _QUANTILE * math.sqrt(spread)) ** 3
    return replace(own, high=min(1.0, max(own.high, quantile / (8 * math.log(2) * draws.remembered))))


def _switches(draws: Draws, own: HealthyRange) -> HealthyRange:
    """Have the rate of independent draws, 1 less the sum of the squared shares, well within."""
    if not draws.by_rank:
        return replace(own, low=0.0, high=math.inf)
    rate = 1 - math.fsum(share * share for share in draws.targets) / math.fsum(draws.targets) ** 2
    chance = _DEVIATIONS * math.sqrt(max(0.0, rate * (1 - rate)) / max(1.0, draws.number))
    low, high = min(rate / 2, rate - chance), max(1 - (1 - rate) / 4, rate + chance)
    return replace(own, low=max(0.0, min(own.low, low)), high=max(own.high, high))


def _active(draws: Draws, own: HealthyRange) -> HealthyRange:
    """Ask for no more readers than the sources have: one for one source, where each has one."""
    if math.isnan(draws.readers):
        return own
    return replace(own, low=min(own.low, max(1.0, draws.readers * len(draws.targets))))


def _largest_age(draws: Draws, own: HealthyRange) -> HealthyRange:
    """Allow the longest wait that the smallest weight explains."""
    if not draws.by_rank:
        return replace(own, high=math.inf)
    slowest = max(_scales(draws), default=0.0)
    return replace(own, high=max(own.high, slowest * math.log(draws.looks * RUNS)))


def _mean_age(draws: Draws, own: HealthyRange) -> HealthyRange:
    """Allow the mean wait that the weights explain, by Bernstein's bound for a sum of exponential variables."""
    if not draws.by_rank:
        return replace(own, high=math.inf)
    scales = _scales(draws)
    if not scales:
        return own
    means = [math.exp(-1 / scale) / -math.expm1(-1 / scale) for scale in scales]
    surprise, number = math.log(draws.looks * RUNS), draws.ranks * len(scales)
    spread = math.sqrt(2 * surprise * mean([scale * scale for scale in scales]) / number)
    return replace(own, high=max(own.high, mean(means) + spread + surprise * max(scales) / number))


def _scales(draws: Draws) -> list[float]:
    """Return for a reader of each source the steps in which the chance of not being picked falls to 1/e."""
    if math.isnan(draws.readers):
        return []
    whole = math.fsum(draws.targets)
    chances = [share / whole / max(1.0, draws.readers) for share in draws.targets]
    return [-1 / (draws.by_step * math.log1p(-chance)) for chance in chances if chance < 1]


_FITS: dict[str, Callable[[Draws, HealthyRange], HealthyRange]] = {
    rows.ACTIVE_READERS.wandb_key: _active,
    rows.STALENESS_MEAN.wandb_key: _mean_age,
    rows.STALENESS_MAX.wandb_key: _largest_age,
    rows.SWITCH_RATE.wandb_key: _switches,
    rows.MIX_DIVERGENCE.wandb_key: _divergence,
}
