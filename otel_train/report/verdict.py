"""The top of the page: the verdict, and a card with a chart for each topic that is wrong."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from otel_train.diagnose.finding import WRONG, Finding, Severity
from otel_train.diagnose.judgement import WINDOW
from otel_train.number_text import exact_number, grouped_number
from otel_train.report.charts import Chart, Line
from otel_train.report.curves import Stretch
from otel_train.report.judged_curve import JudgedCurve
from otel_train.report.markup import Child, Html, join, outside, tag
from otel_train.report.run import ReportRun, Topic, sentence

MOST_STRETCHES = 50
"""Stretches out of range from which on their steps are not counted."""
WORDS = {
    Severity.CRITICAL: "Critical",
    Severity.WARNING: "Out of range",
    Severity.NOTE: "Worth knowing",
    Severity.UNKNOWN: "Not known",
    Severity.OK: "Healthy",
}
_SHAPES = {
    Severity.CRITICAL: "M8 1L15 5V11L8 15L1 11V5ZM5.5 5.5L10.5 10.5M10.5 5.5L5.5 10.5",
    Severity.WARNING: "M8 1.5L15.2 14.5H.8ZM8 6V10M8 12.2V12.4",
    Severity.NOTE: "M8 1A7 7 0 1 1 7.99 1ZM8 7V12M8 4.2V4.4",
    Severity.UNKNOWN: "M8 1A7 7 0 1 1 7.99 1ZM5.8 6.2A2.3 2.3 0 1 1 8 8.6V9.6M8 11.9V12.1",
    Severity.OK: "M8 1A7 7 0 1 1 7.99 1ZM4.8 8.2L7.2 10.6L11.4 5.8",
}


def badge(severity: Severity, words: str = "") -> Html:
    """Return a status as shape, word and colour."""
    shape = tag("svg", tag("path", d=_SHAPES[severity]), viewBox="0 0 16 16", aria_hidden="true")
    return tag("span", shape, words or WORDS[severity], class_=f"badge {severity}")


def verdict(runs: Sequence[ReportRun]) -> Html:
    """Return the verdict of each run, side by side."""
    return tag(
        "section",
        tag("h2", "Verdict", id="verdict", class_="unseen"),
        tag("div", [_verdict(run, index, len(runs)) for index, run in enumerate(runs)], class_="verdicts"),
    )


def _verdict(run: ReportRun, index: int, count: int) -> Html:
    worst = run.verdict
    shape = tag("svg", tag("path", d=_SHAPES[worst]), viewBox="0 0 16 16", aria_hidden="true")
    who = tag("p", key_of(index), outside(run.history.run_id), class_="who") if count > 1 else None
    links = [tag("li", tag("a", outside(topic.title), href=f"#{anchor(topic, index)}")) for topic in run.wrong]
    where = tag("p", f"At step {run.last_step:,}, the newest that is known.", class_="quiet") if not run.wrong else None
    return tag(
        "div",
        shape,
        tag("div", who, tag("p", sentence(run), class_="sentence"), tag("ul", links) if links else None, where),
        class_=f"verdict {worst}",
    )


def key_of(index: int) -> Html:
    """Return the sign that tells two runs apart."""
    return tag("span", "AB"[index], class_=f"key key{index}")


def anchor(topic: Topic, index: int = 0) -> str:
    """Return the name that a topic's card is linked under."""
    word = "".join(char if char.isascii() and char.isalnum() else "-" for char in topic.title[:60])
    return f"{'finding' if index == 0 else 'finding2'}-{word}"


def cards(run: ReportRun, index: int, other: ReportRun | None) -> list[Html]:
    """Return a card for each topic that is wrong."""
    return [_card(run, topic, index, other) for topic in run.wrong]


def _card(run: ReportRun, topic: Topic, index: int, other: ReportRun | None) -> Html:
    wrong = [finding for finding in topic.findings if finding.severity in WRONG]
    evidence = list(dict.fromkeys(line for finding in wrong for line in finding.evidence))
    words = [
        tag(
            "div",
            badge(topic.severity, "" if topic.metric else "Warning" if topic.severity is Severity.WARNING else ""),
            key_of(index) if other else None,
            class_="over",
        ),
        tag("h3", outside(topic.title)),
        tag("p", topic.metric.description, class_="quiet") if topic.metric else None,
        [_finding(finding, before) for finding, before in zip(wrong, [None, *wrong[:-1]], strict=True)],
        tag("ul", [tag("li", line) for line in evidence], class_="evidence") if evidence else None,
        *_advice(wrong),
    ]
    chart = None
    if topic.metric is not None:
        key = topic.metric.wandb_key
        chart = headline_chart(run.judged(key), other.judged(key) if other else None, steps_of(run, other))
        chart = join(_key_figure(run.judged(key)), chart, _stretches_outside(run.judged(key)))
    elif topic.title in run.history.cluster.values:
        points = run.history.cluster.curve(topic.title)
        chart = Chart(title=topic.title, lines=[Line(label="cluster", points=points)], steps=steps_of(run, None)).html()
    return tag(
        "article",
        tag("div", words, class_="words"),
        tag("div", chart, class_="sight") if chart else None,
        class_=f"card {topic.severity}",
        id=anchor(topic, index),
    )


def _finding(finding: Finding, before: Finding | None) -> Html:
    """Return a finding, without the facts that it has in common with the one before."""
    who = f"{finding.check}: " if before is not None else ""
    facts: list[Child] = []
    if finding.since_step is not None:
        facts.append(tag("li", f"since step {finding.since_step:,}"))
    if finding.rank is not None:
        facts.append(tag("li", f"worst on rank {finding.rank}"))
    if finding.chance is not None:
        facts.append(tag("li", f"by chance: {_chance(finding.chance)}"))
    repeated = before is not None and (before.since_step, before.rank) == (finding.since_step, finding.rank)
    return tag(
        "div",
        tag("p", who, finding.summary, class_="summary"),
        tag("ul", facts, class_="facts") if facts and not repeated else None,
    )


def _chance(chance: float) -> str:
    return f"1 in {1 / chance:,.0f}" if 1e-12 < chance < 0.1 else grouped_number(chance)


def _sentence(text: str) -> str:
    """Return words as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _advice(findings: Sequence[Finding]) -> list[Html]:
    """Return causes and remedies, each once."""
    parts = []
    for title, texts in (
        ("Likely cause", [finding.cause for finding in findings]),
        ("What to do", [finding.remedy for finding in findings]),
    ):
        paragraphs = [tag("p", _sentence(text)) for text in dict.fromkeys(texts) if text]
        if paragraphs:
            parts.append(tag("div", tag("h4", title), paragraphs, class_="advice"))
    return parts


def _key_figure(judged: JudgedCurve) -> Html:
    return tag(
        "p",
        tag("strong", grouped_number(judged.last)),
        tag("span", f" {judged.unit}" if judged.unit else "", " now"),
        tag("span", f"healthy: {judged.healthy_text}", class_="wish"),
        class_="keyfigure",
    )


def _stretches_outside(judged: JudgedCurve) -> Html:
    """Return the steps in which a curve is out of its range, in words."""
    spans, steps = judged.outside, (judged.by_step or judged.curve).steps
    if not spans:
        return tag("p", "No step is out of range by itself.", class_="quiet where")
    count = None
    if len(spans) < MOST_STRETCHES:
        count = sum(bisect_right(steps, last) - bisect_left(steps, first) for first, last in spans)
    newest = [_stretch(span) for span in spans[-5:]]
    more = len(spans) - len(newest)
    sentence = f"Out of range in steps {', '.join(newest)}" + (f", and {more} stretches before" if more else "")
    part = f" ({count:,} of {len(steps):,})" if count is not None else ""
    return tag("p", f"{sentence}{part}.", class_="quiet where")


def _stretch(stretch: Stretch) -> str:
    first, last = stretch
    return exact_number(first) if first == last else f"{exact_number(first)} to {exact_number(last)}"


def steps_of(run: ReportRun, other: ReportRun | None) -> tuple[float, float]:
    """Return the axis of steps that all charts have."""
    runs = [run] if other is None else [run, other]
    return float(min(one.first_step for one in runs)), float(max(one.last_step for one in runs))


def headline_chart(
    judged: JudgedCurve, other: JudgedCurve | None, steps: tuple[float, float], *, small: bool = False
) -> Html:
    """Return a headline metric's chart."""
    mean = f"mean of {WINDOW}" + ("" if small else " log steps") if judged.by_step else "cluster"
    lines = []
    if judged.by_step and not (small and other):
        lines.append(Line(label="each step" if small else "each log step", points=judged.by_step, style="faint"))
    lines.append(Line(label=f"A, {mean}" if other else mean, points=judged.curve))
    if judged.worst and not small:
        who = "worst rank, as if all were" if judged.worst_rank is None else f"rank {judged.worst_rank}"
        lines.append(Line(label=who, points=judged.worst, style="rank"))
    if other is not None:
        lines.append(Line(label=f"B, {mean}", points=other.curve, style="other"))
    return Chart(
        title=judged.row.wandb_key,
        description=f"{judged.row.description} In {judged.unit}." if judged.unit else judged.row.description,
        lines=lines,
        band=judged.band,
        outside=judged.outside,
        steps=steps,
        small=small,
        columns=200 if small else 500,
    ).html()


def other_checks(runs: Sequence[ReportRun]) -> Html | None:
    """Return the checks that found nothing wrong, or could not tell."""
    entries = [
        tag(
            "li",
            badge(topic.severity),
            tag(
                "div",
                key_of(index) if len(runs) > 1 else None,
                tag("b", outside(topic.title)),
                [tag("p", finding.summary) for finding in topic.findings],
            ),
        )
        for index, run in enumerate(runs)
        for topic in run.topics
        if topic.severity not in WRONG
    ]
    if not entries:
        return None
    return tag(
        "section",
        tag("h2", "What else was looked at", id="checks"),
        tag(
            "details", tag("summary", f"{len(entries)} checks without a complaint"), tag("ul", entries, class_="checks")
        ),
    )
