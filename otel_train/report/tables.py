"""The page's tables: the ranks, the pipeline, the setup, the page's origin, the differences between two runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from otel_train import __version__
from otel_train.catalogue import Metric, rows
from otel_train.diagnose.finding import WRONG, Severity
from otel_train.number_text import grouped_number
from otel_train.read.history import History, Track, mean
from otel_train.refusals import reasons_text
from otel_train.report.curves import finite
from otel_train.report.markup import Child, Html, outside, tag
from otel_train.report.number_tables import scrolled
from otel_train.report.run import ReportRun
from otel_train.report.sections import section
from otel_train.report.verdict import badge, key_of

MOST_RANKS = 64
MOST_FACTS = 256


_RANK_COLUMNS = (
    (rows.STEP_DURATION, "step, s", True),
    (rows.DATA_WAIT, "data wait, s", True),
    (rows.PICKS, "picks", False),
    (rows.STALENESS_MAX, "oldest reader, steps", True),
    (rows.STARVED_READERS, "starved readers", True),
    (rows.EVICTIONS, "evictions", True),
    (rows.FALSE_EVICTIONS, "false evictions", True),
    (rows.LEDGER_ENTRIES, "ledger entries", False),
)
"""Metric, heading, and whether the largest is the worst."""


def ranks(runs: Sequence[ReportRun]) -> Html | None:
    """Return a table of each run's ranks: those that are behind first, then those that stand out."""
    tables = [
        (tag("h3", key_of(index)) if len(runs) > 1 else None, *_ranks(run))
        for index, run in enumerate(runs)
        if run.history.ranks
    ]
    intro = "Means over all steps; ▲ is the largest of a column, where one stands out."
    return section("ranks", "Ranks", tables, intro=intro) if tables else None


def _ranks(run: ReportRun) -> list[Html | None]:
    tracks = run.history.ranks
    means = {rank: [_mean(track, row) for row, _, _ in _RANK_COLUMNS] for rank, track in tracks.items()}
    columns = [
        column for column in range(len(_RANK_COLUMNS)) if any(not math.isnan(row[column]) for row in means.values())
    ]
    worst = {
        column: _standing_out([row[column] for row in means.values()]) for column in columns if _RANK_COLUMNS[column][2]
    }
    peaks = {rank: sum(means[rank][column] == most for column, most in worst.items()) for rank in tracks}
    order = sorted(tracks, key=lambda rank: (tracks[rank].steps[-1] if tracks[rank].steps else 0, -peaks[rank], rank))
    shown = order if len(order) <= MOST_RANKS else order[:MOST_RANKS]
    body = []
    for rank in shown:
        cells = []
        for column in columns:
            value = means[rank][column]
            stands_out = column in worst and value == worst[column]
            cells.append(
                tag(
                    "td",
                    grouped_number(value),
                    tag("span", " ▲", title="largest") if stands_out else None,
                    class_="peak" if stands_out else None,
                )
            )
        last = tracks[rank].steps[-1] if tracks[rank].steps else 0
        behind = run.last_step - last
        body.append(
            tag(
                "tr",
                tag("th", str(rank), scope="row"),
                tag(
                    "td",
                    f"{last:,}",
                    tag("span", f" ({behind:,} behind)") if behind else None,
                    class_="peak" if behind else None,
                ),
                cells,
            )
        )
    head = tag(
        "tr",
        [
            tag("th", word, scope="col")
            for word in ("rank", "last step", *(_RANK_COLUMNS[column][1] for column in columns))
        ],
    )
    more = len(order) - len(shown)
    unseen = run.history.world_size - len(tracks)
    return [
        scrolled(tag("table", tag("thead", head), tag("tbody", body)), "Ranks"),
        tag("p", f"{more:,} further ranks are no further behind, and the largest of no column.", class_="quiet")
        if more
        else None,
        tag("p", f"This source does not tell of {unseen:,} further ranks.", class_="quiet") if unseen > 0 else None,
    ]


def _mean(track: Track, row: Metric) -> float:
    values = finite(track.curve(row.wandb_key)).values
    if row in (rows.STALENESS_MAX, rows.STARVED_READERS):
        return max(values, default=math.nan)
    return mean(values, math.nan)


def _standing_out(values: Sequence[float]) -> float | None:
    """Return the largest of some values where it is well above the others."""
    ascending = sorted(value for value in values if not math.isnan(value))
    if len(ascending) < 2 or not ascending[-1] > max(0, 1.5 * ascending[-2]):
        return None
    return ascending[-1]


def pipeline(runs: Sequence[ReportRun]) -> Html:
    """Return the pipeline's own losses."""
    facts: list[tuple[str, list[Child], str]] = [
        (
            "Records lost before they were sent",
            [_count(run.history.dropped) for run in runs],
            rows.RECORDS_DROPPED.remedy,
        ),
        ("Points that the receiver refused", [_refused(run.history) for run in runs], rows.POINTS_REFUSED.remedy),
        ("Reductions thrown away", [_count(run.history.abandoned) for run in runs], rows.REDUCTIONS_ABANDONED.remedy),
        ("Ranks in the newest values", [_ranks_in(run.history) for run in runs], ""),
        ("Steps without cluster-wide values", [_missing(run) for run in runs], ""),
    ]
    body = [
        tag("tr", tag("th", name, scope="row"), [tag("td", value) for value in values]) for name, values, _ in facts
    ]
    return section(
        "pipeline", "The pipeline's own health", scrolled(_table_of(runs, body), "The pipeline's own health")
    )


def _table_of(runs: Sequence[ReportRun], body: Sequence[Html]) -> Html:
    """Return a table with a column for each run, and their signs above where there are two."""
    head = tag("thead", tag("tr", tag("td", ""), [tag("th", key_of(index), scope="col") for index in range(len(runs))]))
    return tag("table", head if len(runs) > 1 else None, tag("tbody", body), class_="pairs")


def _refused(history: History) -> list[Child] | Child:
    """Return how many points a receiver refused, and why."""
    reasons = reasons_text(history.refusals)
    return [_count(history.refused), f" ({reasons})"] if reasons else _count(history.refused)


def _count(value: float) -> Child:
    if math.isnan(value):
        return "this source does not tell"
    return tag("span", f"{value:,.0f}", class_="peak") if value else "0"


def _ranks_in(history: History) -> str:
    ranks = history.cluster.last(rows.RANKS.wandb_key)
    if math.isnan(ranks):
        return "not known"
    return f"{ranks:,.0f} of {history.world_size:,}" if history.world_size else f"{ranks:,.0f}"


def _missing(run: ReportRun) -> str:
    steps = run.history.cluster.steps
    every = run.history.facts.get("telemetry.log_every", 1)
    if not steps or not isinstance(every, int) or every < 1:
        return "not known"
    return f"{max(0, (steps[-1] - steps[0]) // every + 1 - len(steps)):,} of {(steps[-1] - steps[0]) // every + 1:,}"


def setup(runs: Sequence[ReportRun]) -> Html:
    """Return the job's settings."""
    names = sorted({name for run in runs for name in run.history.facts})[:MOST_FACTS]
    body = []
    for name in names:
        values = [run.history.facts.get(name, "—") for run in runs]
        differs = len(values) > 1 and values[0] != values[1]
        body.append(
            tag(
                "tr",
                tag("th", outside(name), scope="row"),
                [tag("td", outside(_fact(value))) for value in values],
                class_="differs" if differs else None,
            )
        )
    tables = (
        scrolled(_table_of(runs, body), "Configuration")
        if body
        else tag("p", "This source does not tell.", class_="quiet")
    )
    files = [
        tag(
            "details",
            tag("summary", key_of(index) if len(runs) > 1 else None, "The job's TOML"),
            tag("pre", run.config, tabindex="0"),
            class_="toml",
        )
        for index, run in enumerate(runs)
        if run.config
    ]
    return section("setup", "Configuration", tables, files)


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def origin(runs: Sequence[ReportRun], now: datetime) -> Html:
    """Return the page's origin: source, time, version."""
    entries = []
    for index, run in enumerate(runs):
        times = run.times_ns
        span = f"{moment(times[0])} to {moment(times[1])}, " if times else ""
        entries.append(
            tag(
                "li",
                key_of(index) if len(runs) > 1 else None,
                "Read from ",
                outside(run.history.source),
                f": {span}steps {run.first_step:,} to {run.last_step:,}.",
            )
        )
    entries.append(tag("li", f"Made by otel-train {__version__} at {now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."))
    entries.append(tag("li", "The page holds all that it shows; it does not request anything from a server."))
    return tag("footer", tag("h2", "How this page was made", id="making"), tag("ul", entries))


def moment(time_ns: int) -> str:
    """Return a time, in UTC."""
    try:
        return f"{datetime.fromtimestamp(time_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return "an unknown time"


def differences(run: ReportRun, other: ReportRun) -> Html:
    """Return both runs' newest values, and their differences."""
    body = []
    for row in run.rows:
        own, theirs = run.judged(row.wandb_key), other.judged(row.wandb_key)
        change = theirs.last - own.last
        part = f" ({100 * change / abs(own.last):+.0f} %)" if own.last and math.isfinite(change) else ""
        sign = "+" if change > 0 else ""
        body.append(
            tag(
                "tr",
                tag("th", row.wandb_key, tag("span", f" {own.unit}", class_="quiet"), scope="row"),
                tag("td", _small(run.severity(row.wandb_key)), " ", grouped_number(own.last)),
                tag("td", _small(other.severity(row.wandb_key)), " ", grouped_number(theirs.last)),
                tag("td", "0" if change == 0 else f"{sign}{grouped_number(change)}{part}"),
            )
        )
    head = tag(
        "tr",
        tag("th", "newest figure", scope="col"),
        tag("th", key_of(0), scope="col"),
        tag("th", key_of(1), scope="col"),
        tag("th", "B less A", scope="col"),
    )
    return section(
        "differences", "Differences", scrolled(tag("table", tag("thead", head), tag("tbody", body)), "Differences")
    )


def _small(severity: Severity) -> Html | None:
    return badge(severity) if severity in WRONG or severity is Severity.UNKNOWN else None
