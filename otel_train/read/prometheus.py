"""Read the newest attempt of a run from Prometheus, by the names that the stack's configuration gives the series."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from otel_train.bridge.outcome import outweighs
from otel_train.catalogue import (
    LEDGER,
    MAX_SUFFIX,
    MIXING,
    RANK_SUFFIX,
    REUSE_BOUNDS,
    SAMPLES,
    TIMING,
    Instrument,
    Metric,
    Reduction,
    rows,
    wandb_key,
)
from otel_train.catalogue.series_names import ATTEMPT, HOST, RANK, RUN, cluster_series, label_name, rank_series
from otel_train.host_clock import LIMIT
from otel_train.read.history import History, SourceError, Track, clock_name, first_names
from otel_train.read.query_api import QueryApi, Sample
from otel_train.refusals import OTHER

LOOKBACK = 15 * 24 * 3600
"""Seconds back in which runs are searched: Prometheus keeps 15 days by default."""
MAX_STEPS = 4096
"""Log steps that are read, the newest."""
OUTAGE = 6 * 3600.0
"""Seconds after its last step in which a job's sidecars may still have sent."""
MAX_RANK_SAMPLES = 400_000
"""Samples of the ranks' own values that are read."""


@dataclass(frozen=True, slots=True)
class _Series:
    """The metric that a series of Prometheus has."""

    name: str
    row: Metric
    counts: bool


def read_prometheus(url: str, run: str = "", *, now: float | None = None) -> History:
    """Read a run: the cluster's series at each log step, each rank's at each of its exports.

    Args:
        url: Prometheus' address.
        run: The run's id; may be empty where there is one only.
        now: The present time, seconds since the epoch.

    Raises:
        SourceError: There is no Prometheus, no such run, or several where none was named.
    """
    client, now = QueryApi(url), time.time() if now is None else now
    run, attempt = _newest_attempt(client, run, now)
    of_rank_0 = f'{_matcher(RUN, run)},{RANK}="0",{ATTEMPT}="{attempt}"'
    of_attempt = f'{_matcher(RUN, run)},{ATTEMPT}="{attempt}"'
    end, window = _window(client, f"{rank_series(rows.STEP)}{{{of_rank_0}}}", attempt, now)
    steps = {
        when: int(step)
        for _, samples in client.samples(f"{rank_series(rows.STEP)}{{{of_rank_0}}}", window, end)
        for when, step in samples
    }
    history, age = History(f"Prometheus at {url}, attempt {attempt}", run), end - attempt / 1000
    of_cluster = _cluster_series()
    tables: dict[int, dict[str, float]] = {}
    buckets: dict[float, float] = {}
    for labels, samples in client.samples(_selector([*of_cluster, _buckets()], of_rank_0), window, end):
        name = labels.get("__name__", "")
        if name == _buckets():
            buckets[float(labels["le"])] = samples[-1][1]
            continue
        series, modality = of_cluster[name], labels.get(rows.MODALITY_SHARE.attribute, "")
        key = wandb_key(series.name, modality)
        for when, value in _differences(samples, begins=window >= age) if series.counts else samples:
            if key is not None:
                tables.setdefault(when, {})[key] = value
    _fill(history.cluster, tables, steps)
    if not history.cluster.steps:
        raise SourceError(f"{url} has no cluster-wide values of run {run}, attempt {attempt}")
    history.infer_from_cluster()
    history.modalities = tuple(sorted(history.modalities))
    history.reuse = _reuse(buckets)
    _read_ranks(client, history, of_attempt, window, end, age=age)
    # A sidecar reports its own work at the time of sending, which after an outage is long after the last step.
    latest = min(now, end + OUTAGE)
    _read_pipeline(client, history, of_attempt, window + math.ceil(latest - end), latest)
    return history


def _newest_attempt(client: QueryApi, run: str, now: float) -> tuple[str, int]:
    """Return the run and its newest attempt."""
    selector = rank_series(rows.STEP) + (f"{{{_matcher(RUN, run)}}}" if run else "")
    series = client.get("series", start=now - LOOKBACK, end=now, **{"match[]": selector})
    attempts: dict[str, int] = {}
    for labels in series:
        name, attempt = labels.get(RUN, ""), labels.get(ATTEMPT, "")
        if name and attempt.isdecimal():
            attempts[name] = max(attempts.get(name, 0), int(attempt))
    if len(attempts) == 1:
        return next(iter(attempts.items()))
    if not attempts:
        missing = f"run {run}" if run else "run"
        hint = "`otel-train doctor --receiver` says whether it has other names or labels"
        raise SourceError(f"{client.url} has no {missing} of otel_train in 15 days; {hint}")
    newest = sorted(attempts, key=lambda name: -attempts[name])
    raise SourceError(f"{client.url} has {len(newest)} runs; give one as --run: {first_names(newest)}")


def _window(client: QueryApi, selector: str, attempt: int, now: float) -> tuple[float, int]:
    """Return the end of an attempt, and how many seconds before it hold the steps that are read."""
    age = min(LOOKBACK, max(60, math.ceil(now - attempt / 1000) + 60))
    counted = client.get("query", query=f"count_over_time({selector}[{age}s])", time=now)["result"]
    if not counted:
        raise SourceError(f"{client.url} has no steps of rank 0 in 15 days")
    count = float(counted[0]["value"][1])
    # The end, to a minute, of a job that may be over for days.
    step = max(60, age // 10_000)
    last = client.get("query", query=f"max_over_time(timestamp({selector})[{age}s:{step}s])", time=now)["result"]
    end = min(now, float(last[0]["value"][1]) + step + 1) if last else now
    length = max(60, math.ceil(end - attempt / 1000) + 1)
    return end, length if count <= MAX_STEPS else max(60, math.floor(length * MAX_STEPS / count))


def _matcher(label: str, value: str) -> str:
    return f"{label}={json.dumps(value)}"


def _selector(names: Sequence[str], matchers: str) -> str:
    return f'{{__name__=~"{"|".join(sorted(set(names)))}",{matchers}}}'


def _buckets() -> str:
    return cluster_series(rows.REUSE_DISTANCE)


def _cluster_series() -> dict[str, _Series]:
    """Return the cluster-wide series by their names."""
    series = {}
    for row in (*MIXING, *SAMPLES, *LEDGER, *TIMING):
        if row.reduction is Reduction.HISTOGRAM:
            continue
        series[cluster_series(row)] = _Series(row.name, row, row.instrument is Instrument.COUNTER)
        siblings = ((MAX_SUFFIX, MAX_SUFFIX + RANK_SUFFIX) if row.with_max else ()) + (
            (RANK_SUFFIX,) if row.reduction is Reduction.MAX else ()
        )
        for sibling in siblings:
            series[cluster_series(row, sibling)] = _Series(row.name + sibling, row, counts=False)
    return series


def _differences(samples: Sequence[Sample], *, begins: bool) -> list[Sample]:
    """Return a counter's increments; its first sample is one where the attempt begins with it."""
    increments = [samples[0]] if begins and samples else []
    for (_, before), (when, value) in pairwise(samples):
        increments.append((when, value - before if value >= before else value))
    return increments


def _fill(track: Track, tables: Mapping[int, Mapping[str, float]], steps: Mapping[int, int]) -> None:
    for when in sorted(tables):
        if when in steps:
            track.add(steps[when], when * 1_000_000, tables[when])


def _reuse(buckets: Mapping[float, float]) -> tuple[float, ...]:
    """Return the counts of each bucket, from Prometheus' cumulated ones; the sum of the distances is not read."""
    bounds = (*REUSE_BOUNDS, math.inf)
    if any(bound not in buckets for bound in bounds):
        return ()
    cumulated = [buckets[bound] for bound in bounds]
    return (*(now - before for before, now in zip((0.0, *cumulated), cumulated, strict=False)), math.nan)


def _read_ranks(client: QueryApi, history: History, matchers: str, window: int, end: float, *, age: float) -> None:
    """Read each rank's own values, as far back as they are not too many, of an attempt that took `age` seconds."""
    of_ranks = {
        rank_series(row): _Series(row.name, row, row.instrument is Instrument.COUNTER)
        for row in (*MIXING, *SAMPLES, *LEDGER, *TIMING)
        if row.reduction is not Reduction.HISTOGRAM and not row.attribute
    }
    selector = _selector([*of_ranks, rank_series(rows.STEP)], matchers)
    steps_of_all = f"{rank_series(rows.STEP)}{{{matchers}}}[{window}s]"
    counted = client.get("query", query=f"sum(count_over_time({steps_of_all}))", time=end)["result"]
    count = float(counted[0]["value"][1]) * len(of_ranks) if counted else 0.0
    if count > MAX_RANK_SAMPLES:
        window = max(60, math.floor(window * MAX_RANK_SAMPLES / count))
    tables: dict[int, dict[int, dict[str, float]]] = {}
    steps: dict[int, dict[int, int]] = {}
    for labels, samples in client.samples(selector, window, end):
        if not labels.get(RANK, "").isdecimal():
            continue
        rank, name = int(labels[RANK]), labels.get("__name__", "")
        if name == rank_series(rows.STEP):
            steps[rank] = {when: int(step) for when, step in samples}
            continue
        series = of_ranks[name]
        key = wandb_key(series.name)
        for when, value in _differences(samples, begins=window >= age) if series.counts else samples:
            if key is not None:
                tables.setdefault(rank, {}).setdefault(when, {})[key] = value
    for rank in sorted(tables):
        _fill(history.ranks.setdefault(rank, Track()), tables[rank], steps.get(rank, {}))


def _read_pipeline(client: QueryApi, history: History, matchers: str, window: int, end: float) -> None:
    """Read the counts of losses over all ranks."""

    def newest(row: Metric, aggregation: str, label: str = "") -> dict[str, float]:
        by = f" by ({label})" if label else ""
        query = f"{aggregation}{by} (last_over_time({rank_series(row)}{{{matchers}}}[{window}s]))"
        result = client.get("query", query=query, time=end)["result"]
        return {series["metric"].get(label, ""): float(series["value"][1]) for series in result}

    reasons = newest(rows.POINTS_REFUSED, "sum", label_name(rows.POINTS_REFUSED.attribute))
    history.dropped = newest(rows.RECORDS_DROPPED, "sum").get("", math.nan)
    history.refused = sum(reasons.values()) if reasons else math.nan
    history.refusals = {reason or OTHER: count for reason, count in reasons.items() if count}
    offsets = f"last_over_time({rank_series(rows.CLOCK_OFFSET)}{{{matchers}}}[{window}s])"
    for series in client.get("query", query=offsets, time=end)["result"]:
        labels, seconds = series["metric"], float(series["value"][1])
        if abs(seconds) > LIMIT:
            history.wrong_clocks[clock_name(labels.get(RANK, "?"), labels.get(HOST, "?"))] = seconds
    history.abandoned = newest(rows.REDUCTIONS_ABANDONED, "max").get("", math.nan)
    _read_end(client, history, matchers, window, end)


def _read_end(client: QueryApi, history: History, matchers: str, window: int, end: float) -> None:
    """Read how the job ended: of the ranks' exit codes the one that says most of why."""
    ended = 0
    for labels, samples in client.samples(f"{rank_series(rows.SESSION_FAILED)}{{{matchers}}}", window, end):
        rank, (when, code) = labels.get(RANK, ""), samples[0]
        counts = rank.isdecimal() and (code or rank == "0")  # as for the bridge
        if counts and outweighs(round(code), history.exit_code, (when - ended) * 10**6):
            ended, history.exit_code, history.failed_rank = when, round(code), int(rank) if code else None
