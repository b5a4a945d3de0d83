"""Render the whole page: one file with all that it shows, which can request nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from importlib import resources

from otel_train.report import sections, tables
from otel_train.report.losses import losses
from otel_train.report.markup import Html, outside, tag
from otel_train.report.run import ReportRun, sentence
from otel_train.report.user_scalars import scalars
from otel_train.report.verdict import cards, key_of, other_checks, verdict


def render_report(run: ReportRun, other: ReportRun | None = None, *, now: datetime) -> str:
    """Return the page about a run.

    Args:
        run: The run.
        other: A run to compare it with.
        now: The present time.
    """
    runs = [run] if other is None else [run, other]
    problems = [*cards(run, 0, other), *(cards(other, 1, run) if other else [])]
    wrong = sections.section("wrong", "What is wrong", problems) if problems else None
    parts = [
        ("wrong", "Wrong", wrong),
        ("differences", "Differences", tables.differences(run, other) if other else None),
        ("metrics", "Metrics", sections.metrics(run, other)),
        ("mix", "Shares", sections.mix(run, other)),
        ("ledger", "Ledger", sections.ledger(run, other)),
        ("ranks", "Ranks", tables.ranks(runs)),
        ("sources", "Sources", losses(run, other)),
        ("training", "Training", scalars(run, other)),
        ("checks", "Checks", other_checks(runs)),
        ("pipeline", "Pipeline", tables.pipeline(runs)),
        ("setup", "Configuration", tables.setup(runs)),
    ]
    present = [(name, word, part) for name, word, part in parts if part is not None]
    links = [tag("li", tag("a", word, href=f"#{name}")) for name, word, _ in present]
    body = tag(
        "body",
        tag("a", "To the verdict", href="#verdict", class_="skip"),
        _header(runs),
        tag(
            "main",
            verdict(runs),
            tag("nav", tag("ul", links), aria_label="Parts of the page"),
            [part for _, _, part in present],
        ),
        tables.origin(runs, now),
        Html(f"<script>{_file('hover.js')}</script>"),
    )
    return "<!DOCTYPE html>\n" + tag("html", _head(runs), body, lang="en") + "\n"


def _file(name: str) -> str:
    return (resources.files("otel_train.report") / name).read_text(encoding="utf-8")


def _head(runs: Sequence[ReportRun]) -> Html:
    digest = base64.b64encode(hashlib.sha256(_file("hover.js").encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    names = " and ".join(run.history.run_id for run in runs)
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", f"{names}: {sentence(runs[0])}"),
        tag("link", rel="icon", href="data:,"),
        Html(f"<style>{_file('style.css')}</style>"),
    )


def _header(runs: Sequence[ReportRun]) -> Html:
    titles, lines = [], []
    for index, run in enumerate(runs):
        key = key_of(index) if len(runs) > 1 else None
        times = run.times_ns
        facts = [
            f"{run.history.world_size:,} ranks" if run.history.world_size else "ranks not known",
            f"steps {run.first_step:,} to {run.last_step:,}",
            *([tables.moment(times[1])] if times else []),
        ]
        titles.append(tag("span", key, outside(run.history.run_id), class_="run"))
        lines.append(tag("p", key, " · ".join(facts), class_="meta"))
    return tag("header", tag("p", "otel-train report", class_="eyebrow"), tag("h1", titles), lines)
