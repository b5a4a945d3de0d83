"""The page of all metrics, with the meaning of each, as Markdown."""

from __future__ import annotations

from otel_train.catalogue import CATALOGUE, HEADLINE, MAX_SUFFIX, Metric, Reduction, cluster_name

_NOTICE = "<!-- Made by `otel-train render` from the catalogue; edit the rows in otel_train/catalogue instead. -->"
_REDUCTIONS = {
    Reduction.SUM: "SUM",
    Reduction.MEAN: "SUM / SUM",
    Reduction.MAX: "MAX, and its rank",
    Reduction.MIN: "MIN, and its rank",
    Reduction.DIVERGENCE: "from the SUMmed counts and targets",
    Reduction.SHARE: "from the SUMs",
    Reduction.ALIKE: "from the SUMs",
    Reduction.REPEATS: "from SUMmed counts and a SUMmed sketch",
    Reduction.HISTOGRAM: "SUM of each bucket",
    Reduction.LOCAL: "none",
}


def metrics_page() -> str:
    """Return the page, ending in a newline."""
    others = [metric for metric in CATALOGUE if metric not in HEADLINE]
    lines = [
        "# Metrics",
        "",
        _NOTICE,
        "",
        "Each metric of a rank is exported under its name, the cluster-wide value with `.cluster.` after the first",
        f"part (`{HEADLINE[0].name}`, `{cluster_name(HEADLINE[0].name)}`). wandb gets the cluster-wide value, for a",
        "counter the count of the interval: the steps since the last log step. See the [glossary](glossary.md), too.",
        "",
        "A healthy range names the figure that is compared (the mean, the largest or the last value, over the run in",
        "`doctor`, over ten minutes in an alert) and what it is divided by first: `mean <= 0.05/pick` is at most five",
        "evictions in a hundred picks, `/rank` makes a range hold for any number of ranks. A `_max` key is judged as",
        "if every rank were like the worst. A job's `[health]` table sets other ranges.",
        "",
        "## Headline metrics",
        "",
        "| name | instrument, unit | reduction over ranks | wandb key | healthy | meaning |",
        "|---|---|---|---|---|---|",
        *map(_row, HEADLINE),
        "",
        "## Other metrics",
        "",
        "| name | instrument, unit | reduction over ranks | wandb key | healthy | meaning |",
        "|---|---|---|---|---|---|",
        *map(_row, others),
        "",
        "## What to do when one is out of its range",
        "",
        *(f"- `{metric.name}`: {metric.remedy}" for metric in CATALOGUE if metric.remedy),
    ]
    return "\n".join(lines) + "\n"


def _row(metric: Metric) -> str:
    name = f"`{metric.name}`" + (f", attribute `{metric.attribute}`" if metric.attribute else "")
    reduction = _REDUCTIONS[metric.reduction] + (f"; `{MAX_SUFFIX}` is MAX, and its rank" if metric.with_max else "")
    keys = f"`{metric.wandb_key}`" if metric.wandb_key else ""
    if metric.with_max:
        keys += f", `{metric.wandb_key}{MAX_SUFFIX}`"
    cells = (
        name,
        f"{metric.instrument} `{metric.unit}`",
        reduction,
        keys,
        str(metric.healthy or ""),
        metric.description,
    )
    return "| " + " | ".join(cells) + " |"
