"""What each panel says of recorded runs, in plain Python from their records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter

from otel_train.catalogue import (
    MAX_SUFFIX,
    REUSE_BOUNDS,
    Instrument,
    Metric,
    Per,
    Statistic,
    healthy_range,
    rows,
)
from otel_train.catalogue.series_names import ATTEMPT, HOST, RANK, label_name
from otel_train.host_clock import LIMIT, Reference
from otel_train.refusals import Refusal
from tests.support.expected_values import (
    FRAME,
    LOOKBACK,
    RATE,
    Expected,
    Values,
    View,
    at_present,
    by_attempt,
    frame,
    now,
    of_ranks,
)
from tests.support.recorded_runs import REASON, SOURCES, Attempt, Interval


def divergence(interval: Interval) -> float:
    """Return the Jensen-Shannon divergence of the shares from their targets."""
    p, q = (shares(interval, name) for name in ("counts", "targets"))

    def entropy(parts: Sequence[float]) -> float:
        return -sum(part * math.log2(part) for part in parts if part)

    return entropy([(a + b) / 2 for a, b in zip(p, q, strict=True)]) - (entropy(p) + entropy(q)) / 2


def shares(interval: Interval, name: str) -> list[float]:
    """Return the sources' shares of the counts or targets."""
    numbers = interval.sums[f"stream_mixing.decayed_{name}"]
    return [number / sum(numbers) for number in numbers]


GAUGES: dict[Metric, Callable[[Interval], float]] = {
    rows.MIX_DIVERGENCE: divergence,
    rows.SWITCH_RATE: lambda interval: interval["stream_mixing.switches"] / interval["stream_mixing.pairs"],
    rows.STALENESS_MAX: lambda interval: interval.largest["stream_mixing.staleness_max"][0],
    rows.STALENESS_MEAN: lambda interval: interval["stream_mixing.age_sum"] / interval["stream_mixing.active_readers"],
    rows.ACTIVE_READERS: lambda interval: interval["stream_mixing.active_readers"],
}
"""Value of a judged gauge."""


def total(intervals: Sequence[Interval], measure: str) -> float:
    """Return a measure's sum."""
    return math.fsum(interval[measure] for interval in intervals)


def quotient(top: float, bottom: float) -> float:
    """Return a quotient; NaN where there is nothing to divide by."""
    return top / bottom if bottom else math.nan


def figure(key: str, row: Metric, intervals: Sequence[Interval], moment: float) -> float:
    """Return a headline key's figure of ten minutes."""
    healthy, within = healthy_range(key), frame(intervals, moment, FRAME)
    if not within or row is rows.REPEATS:
        return math.nan
    picks, ranks = total(within, "stream_mixing.picks"), within[-1]["train.ranks"]
    if row.instrument is Instrument.COUNTER and healthy.per is Per.PICK:
        if key == row.wandb_key + MAX_SUFFIX:
            return quotient(sum(interval.largest[row.name][0] for interval in within) * ranks, picks)
        return quotient(total(within, row.measures[0].name), picks)
    if row.instrument is Instrument.COUNTER:
        assert healthy.per is Per.RANK
        first = intervals[0].time > moment - FRAME
        counts = within[1:] if first else within
        steps = within[-1].step - (within[0].step if first else intervals[intervals.index(within[0]) - 1].step)
        return quotient(total(counts, row.measures[0].name), steps * ranks)
    values = [GAUGES[row](interval) for interval in within]
    value = {Statistic.MEAN: math.fsum(values) / len(values), Statistic.MAX: max(values), Statistic.LAST: values[-1]}
    return value[healthy.statistic] / (ranks if healthy.per is Per.RANK else 1)


def headline(row: Metric) -> list[Expected]:
    """Expect what a headline panel shows."""
    keys = [row.wandb_key]
    if row.with_max and row.healthy is not None and row.healthy.worst:
        keys.append(row.wandb_key + MAX_SUFFIX)
    expected = [by_attempt(partial(figure, key, row)) for key in keys]
    if row is rows.REPEATS:
        return [*expected, by_attempt(lambda *_: math.nan)]
    if row.instrument is Instrument.GAUGE:
        ranks = healthy_range(row.wandb_key).per is Per.RANK
        expected.append(at_present(lambda interval: GAUGES[row](interval) / (interval["train.ranks"] if ranks else 1)))
    return expected


def pace(value: Callable[[Interval], float], intervals: Sequence[Interval], moment: float) -> float | None:
    """Return a counter's rate; None where an attempt begins or ends, so that Prometheus estimates."""
    for seconds, most, newest in ((RATE, math.inf, RATE), (FRAME, 20, FRAME), (3600.0, 12, 900.0)):
        within = frame(intervals, moment, seconds)
        if len(within) < 2 or len(within) > most or not frame(intervals, moment, newest):
            continue
        mean = (within[-1].time - within[0].time) / (len(within) - 1)
        count, length = sum(map(value, within[1:])), within[-1].time - within[0].time
        early = within[0].time - moment + seconds
        # It goes back no further than to where the counter would have been 0.
        since_zero = (
            sum(map(value, intervals[: intervals.index(within[0]) + 1])) / count * length if count else math.inf
        )
        if max(early, moment - within[-1].time) > 1.0001 * mean or since_zero < early:
            return None
        return count / length
    return math.nan


def tokens(view: View, moment: float) -> Values:
    """Return the tokens a second of each source, over all attempts."""
    values: Values = {}
    for attempt in view.attempts:
        for index, source in enumerate(SOURCES):
            rate = pace(partial(_tokens_of, index), attempt.cluster, moment)
            if rate is None or values.get((source,), 0.0) is None:
                values[(source,)] = None
            elif not math.isnan(rate):
                values[(source,)] = (values.get((source,)) or 0.0) + rate
    return values


def _tokens_of(index: int, interval: Interval) -> float:
    return interval.sums["stream_mixing.tokens"][index]


def by_source(values: Callable[[Interval], Sequence[float]]) -> Expected:
    """Expect a value of each source in the newest record of each attempt."""
    return Expected(
        (ATTEMPT, "modality"),
        lambda view, moment: {
            (str(attempt.number), source): value
            for attempt in view.attempts
            if (newest := now(attempt.cluster, moment)) is not None
            for source, value in zip(SOURCES, values(newest), strict=True)
        },
    )


def distance(view: View, moment: float) -> Values:
    """Return each source's share less its target, of the attempt that has reported last."""
    newest = [interval for attempt in view.attempts if (interval := now(attempt.cluster, moment, FRAME))]
    if not newest:
        return {}
    last = max(newest, key=lambda interval: interval.time)
    pairs = zip(SOURCES, shares(last, "counts"), shares(last, "targets"), strict=True)
    return {(source,): share - target for source, share, target in pairs}


def losses(interval: Interval) -> list[float]:
    """Return the loss of each source."""
    sums, counts = (interval.sums[f"train/loss:{part} by source"] for part in ("total", "count"))
    return [top / bottom for top, bottom in zip(sums, counts, strict=True)]


def loss(interval: Interval) -> float:
    """Return the loss of all rows."""
    sums, counts = (sum(interval.sums[f"train/loss:{part} by source"]) for part in ("total", "count"))
    return sums / counts


def named(row: Metric) -> Expected:
    """Expect the largest value of a rank in the newest interval, and the rank's number."""

    def compute(view: View, moment: float) -> Values:
        newest = {attempt: now(attempt.cluster, moment) for attempt in view.attempts}
        return {
            (str(attempt.number), str(interval.largest[row.name][1])): interval.largest[row.name][0]
            for attempt, interval in newest.items()
            if interval is not None
        }

    return Expected((ATTEMPT, "worst_rank"), compute)


def worst_owners(view: View, moment: float) -> Values:
    """Return the false evictions of each rank in the shown time."""
    values: Values = {}
    for attempt in view.attempts:
        for rank, own in enumerate(attempt.of_rank):
            if within := frame(own, moment, view.shown):
                key = str(rank), f"node{rank // 8}"
                values[key] = (values.get(key) or 0.0) + total(within, rows.FALSE_EVICTIONS.name)
    return values


def cumulated(intervals: Sequence[Interval]) -> list[float]:
    """Return how many reuse distances are at most each bound, the last of which is infinite."""
    counts = [math.fsum(column) for column in zip(*(i.sums[rows.REUSE_DISTANCE.name] for i in intervals), strict=True)]
    return [sum(counts[: index + 1]) for index in range(len(REUSE_BOUNDS) + 1)]


def distances(view: View, moment: float) -> Values:
    """Return how many reuse distances are in each bucket or one before, over all attempts."""
    frames = [frame(attempt.cluster, moment, RATE) for attempt in view.attempts]
    within = [interval for intervals in frames for interval in intervals]
    if not within:
        return {}
    bounds = [*(f"{bound:g}" for bound in REUSE_BOUNDS), "+Inf"]
    return {(bound,): count for bound, count in zip(bounds, cumulated(within), strict=True)}


def advised(view: View, moment: float) -> Values:
    """Return the capacity a rank with which nine of ten false evictions in the shown time would have been hits."""
    values: Values = {}
    for attempt in view.attempts:
        if newest := now(attempt.cluster, moment):
            a_rank = newest["ledger.capacity"] / newest["train.ranks"]
            values[(str(attempt.number),)] = a_rank + quantile(cumulated(frame(attempt.cluster, moment, view.shown)))
    return values


def quantile(counts: Sequence[float]) -> float:
    """Return the 0.9 quantile of a histogram, linear within a bucket."""
    goal = 0.9 * counts[-1]
    index = next(index for index, count in enumerate(counts) if count >= goal)
    if index == len(REUSE_BOUNDS):
        return REUSE_BOUNDS[-1]
    low, before = (REUSE_BOUNDS[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    return low + (REUSE_BOUNDS[index] - low) * (goal - before) / (counts[index] - before)


def state(attempt: Attempt, moment: float, seconds: float = LOOKBACK) -> float:
    """Return when the sidecar has last told of the ranks' state; NaN where that is too long ago."""
    times = [told for told in attempt.live_times() if moment - seconds < told <= moment]
    return times[-1] if times else math.nan


def of_states(
    labels: tuple[str, ...], value: Callable[[Attempt, int, float], float], seconds: float = LOOKBACK
) -> Expected:
    """Expect the sum of a value of the ranks' newest states, by labels."""

    def compute(view: View, moment: float) -> Values:
        values: Values = {}
        for attempt in view.attempts:
            if not math.isnan(told := state(attempt, moment, seconds)):
                for rank in range(attempt.ranks):
                    of = {ATTEMPT: str(attempt.number), RANK: str(rank), HOST: f"node{rank // 8}", "phase": "compute"}
                    key = tuple(of[label] for label in labels)
                    values[key] = (values.get(key) or 0.0) + value(attempt, rank, told)
        return values

    return Expected(labels, compute, 16)


def lost(attempt: Attempt, rank: int, told: float) -> float:
    """Return how many records of a rank are lost."""
    return float(attempt.dropped_at(told)) if rank == attempt.ranks - 1 else 0.0


def refused(view: View, moment: float) -> Values:
    """Return how many points were refused since each attempt began, for what reason."""
    values = of_states((ATTEMPT, HOST), lost).compute(view, moment)
    for_reason: Values = {(*key, REASON): value for key, value in values.items() if value}
    return for_reason | {(*key, str(Refusal.REJECTED)): 0.0 for key in values}


def wrong_clocks(view: View, moment: float) -> Values:
    """Return by how much the last rank's clock is ahead, where that is too much."""
    return {
        (str(attempt.number), str(rank), f"node{rank // 8}", str(Reference.RECEIVER)): attempt.clock
        for attempt in view.attempts
        for rank in (attempt.ranks - 1,)
        if abs(attempt.clock) > LIMIT and not math.isnan(state(attempt, moment, 120.0))
    }


def nothing(*_: object) -> float:
    """Return 0."""
    return 0.0


def reporting(view: View, moment: float) -> Values:
    """Return how many ranks have been heard of in the last minute."""
    return {
        (str(attempt.number),): float(attempt.ranks)
        for attempt in view.attempts
        if now(attempt.cluster, moment, 60.0) or not math.isnan(state(attempt, moment, 60.0))
    }


def present(value: Callable[[Interval], float]) -> Callable[[Sequence[Interval], float], float]:
    """Return what gives a value of the newest of some records."""
    return lambda intervals, moment: math.nan if (newest := now(intervals, moment)) is None else value(newest)


def mean(part: str) -> Callable[[Interval], float]:
    """Return what gives a mean time of a step."""
    return lambda interval: interval[part] / interval["train.step.count"]


def slowest(part: str) -> Expected:
    """Expect the largest mean time of a rank."""
    value = present(mean(part))
    return Expected(
        (ATTEMPT,),
        lambda view, moment: {
            (str(attempt.number),): max(value(own, moment) for own in attempt.of_rank) for attempt in view.attempts
        },
    )


def share(top: str, bottom: str) -> list[Expected]:
    """Expect a quotient of two counts of ten minutes."""

    def compute(intervals: Sequence[Interval], moment: float) -> float:
        within = frame(intervals, moment, FRAME)
        return quotient(total(within, top), total(within, bottom))

    return [by_attempt(compute)]


REFUSED_FOR, AGAINST = (label_name(row.attribute) for row in (rows.POINTS_REFUSED, rows.CLOCK_OFFSET))
DURATION, WAIT = "train.step.seconds", "train.data.wait_seconds"
PANELS: Mapping[str, Sequence[Expected]] = {
    "Realised and target shares": [by_source(lambda i: shares(i, "counts")), by_source(lambda i: shares(i, "targets"))],
    "Realised less target share, now": [Expected(("modality",), distance)],
    "Mix divergence": headline(rows.MIX_DIVERGENCE),
    "Switch rate": headline(rows.SWITCH_RATE),
    "Repeated samples": headline(rows.REPEATS),
    "Tokens a second by modality": [Expected(("modality",), tokens)],
    "Loss by source": [by_source(losses), at_present(loss)],
    "Largest age of a reader": headline(rows.STALENESS_MAX),
    "The rank that has the largest age": [named(rows.STALENESS_MAX)],
    "Largest age on each rank": [of_ranks(present(GAUGES[rows.STALENESS_MAX]), 16)],
    "Mean age of the readers": headline(rows.STALENESS_MEAN),
    "Starved readers": [at_present(itemgetter("stream_mixing.starved_readers"))],
    "Active readers a rank": headline(rows.ACTIVE_READERS),
    "Restarts a pick": headline(rows.RESTARTS),
    "Picks a step and rank": headline(rows.PICKS),
    "Picks of each rank": [of_ranks(partial(pace, itemgetter("stream_mixing.picks")), -16)],
    "Evictions a pick": headline(rows.EVICTIONS),
    "False evictions a pick": headline(rows.FALSE_EVICTIONS),
    "Stale evictions a pick": headline(rows.STALE_EVICTIONS),
    "Fresh writes a pick": headline(rows.FRESH_WRITES),
    "False evictions' share of fresh writes": share("ledger.false_evictions", "ledger.fresh_writes"),
    "False evictions of the worst owners": [Expected((RANK, HOST), worst_owners, 8)],
    "The owner with the most evictions": [named(rows.EVICTIONS)],
    "Reuse distance of false evictions": [Expected(("le",), distances)],
    "Advised capacity a rank": [
        Expected((ATTEMPT,), advised),
        at_present(lambda interval: interval["ledger.capacity"] / interval["train.ranks"]),
    ],
    "Fill of all shards": [at_present(lambda interval: interval["ledger.entries"] / interval["ledger.capacity"])],
    "Fill of each shard": [of_ranks(present(lambda i: i["ledger.entries"] / i["ledger.capacity"]), 16)],
    "Evictions of each owner": [of_ranks(partial(pace, itemgetter("ledger.evictions")), 16)],
    "Fresh writes of each owner": [of_ranks(partial(pace, itemgetter("ledger.fresh_writes")), 16)],
    "Hits a pick": share("ledger.hits", "stream_mixing.picks"),
    "Step": [at_present(lambda interval: float(interval.step))],
    "Step time": [at_present(mean(DURATION)), slowest(DURATION)],
    "Wait for data": [at_present(mean(WAIT)), slowest(WAIT)],
    "Ranks that report": [Expected((ATTEMPT,), reporting), at_present(itemgetter("train.ranks"))],
    "Time since the last step, by rank and phase": [of_states((RANK, HOST, "phase"), nothing, 60.0)],
    "Export lag": [replace(of_states((HOST,), nothing), most=0)],
    "Clocks that are off": [Expected((ATTEMPT, RANK, HOST, AGAINST), wrong_clocks, 16)],
    "Records dropped": [of_states((ATTEMPT, HOST), lost)],
    "Points refused": [Expected((ATTEMPT, HOST, REFUSED_FOR), refused, 16)],
    "Reductions abandoned": [of_states((ATTEMPT, RANK), nothing)],
    "Step time of each rank": [of_ranks(present(mean(DURATION)), 16)],
    "Wait for data of each rank": [of_ranks(present(mean(WAIT)), 16)],
}
"""Of each panel that is about a run, what its queries show."""
