"""The top of the page: the verdict, and a card for each thing that is wrong, with its chart."""

from __future__ import annotations

from collections.abc import Sequence

from otel_train.diagnose.examine import WINDOW
from otel_train.diagnose.finding import Finding, Severity
from otel_train.report.charts import Chart, Line
from otel_train.report.curve import Stretch, exactly, figure
from otel_train.report.judged import Judged
from otel_train.report.markup import Child, Html, join, outside, tag
from otel_train.report.run import BAD, ReportRun, Topic, sentence

WORDS = {
    Severity.CRITICAL: "Critical",
    Severity.WARNING: "Out of range",
    Severity.UNKNOWN: "Not known",
    Severity.OK: "Healthy",
}
_SHAPES = {
    Severity.CRITICAL: "M8 1L15 5V11L8 15L1 11V5ZM5.5 5.5L10.5 10.5M10.5 5.5L5.5 10.5",
    Severity.WARNING: "M8 1.5L15.2 14.5H.8ZM8 6V10M8 12.2V12.4",
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
        tag("div", [_verdict(run, place, len(runs)) for place, run in enumerate(runs)], class_="verdicts"),
    )


def _verdict(run: ReportRun, place: int, count: int) -> Html:
    worst = run.verdict
    bad = run.bad
    shape = tag("svg", tag("path", d=_SHAPES[worst]), viewBox="0 0 16 16", aria_hidden="true")
    who = tag("p", key_of(place), outside(run.history.run_id), class_="who") if count > 1 else None
    links = [tag("li", tag("a", outside(topic.title), href=f"#{anchor(topic, place)}")) for topic in bad]
    where = tag("p", f"At step {run.last_step:,}, the newest that is known.", class_="quiet") if not bad else None
    return tag(
        "div",
        shape,
        tag("div", who, tag("p", sentence(run), class_="sentence"), tag("ul", links) if links else None, where),
        class_=f"verdict {worst}",
    )


def key_of(place: int) -> Html:
    """Return the sign that tells two runs apart."""
    return tag("span", "AB"[place], class_=f"key key{place}")


def anchor(topic: Topic, place: int = 0) -> str:
    """Return the name that a topic's card is linked under."""
    word = "".join(each if each.isascii() and each.isalnum() else "-" for each in topic.title[:60])
    return f"{'found' if place == 0 else 'found2'}-{word}"


def cards(run: ReportRun, place: int, other: ReportRun | None) -> list[Html]:
    """Return a card for each thing that is wrong."""
    return [_card(run, topic, place, other) for topic in run.bad]


def _card(run: ReportRun, topic: Topic, place: int, other: ReportRun | None) -> Html:
    bad = [finding for finding in topic.findings if finding.severity in BAD]
    evidence = list(dict.fromkeys(line for finding in bad for line in finding.evidence))
    words = [
        tag(
            "div",
            badge(topic.severity, "" if topic.metric else "Warning" if topic.severity is Severity.WARNING else ""),
            key_of(place) if other else None,
            class_="over",
        ),
        tag("h3", outside(topic.title)),
        tag("p", topic.metric.description, class_="quiet") if topic.metric else None,
        [_finding(finding, before) for finding, before in zip(bad, [None, *bad[:-1]], strict=True)],
        tag("ul", [tag("li", line) for line in evidence], class_="evidence") if evidence else None,
        *_advice(bad),
    ]
    chart = None
    if topic.metric is not None:
        key = topic.metric.wandb_key
        chart = headline_chart(run.judged[key], other.judged[key] if other else None, steps_of(run, other))
        chart = join(_key_figure(run.judged[key]), chart, _where(run.judged[key]))
    elif topic.title in run.history.cluster.values:
        points = [(float(step), value) for step, value in run.history.cluster.known(topic.title)]
        chart = Chart(title=topic.title, lines=[Line(label="cluster", points=points)], steps=steps_of(run, None)).html()
    return tag(
        "article",
        tag("div", words, class_="words"),
        tag("div", chart, class_="sight") if chart else None,
        class_=f"card {topic.severity}",
        id=anchor(topic, place),
    )


def _finding(finding: Finding, before: Finding | None) -> Html:
    """Return what one finding says that the one before does not."""
    who = f"{finding.check}: " if before is not None else ""
    facts: list[Child] = []
    if finding.since_step is not None:
        facts.append(tag("li", f"since step {finding.since_step:,}"))
    if finding.rank is not None:
        facts.append(tag("li", f"worst on rank {finding.rank}"))
    if finding.chance is not None:
        facts.append(tag("li", f"by chance: {_chance(finding.chance)}"))
    told = before is not None and (before.since_step, before.rank) == (finding.since_step, finding.rank)
    return tag(
        "div",
        tag("p", who, finding.summary, class_="summary"),
        tag("ul", facts, class_="facts") if facts and not told else None,
    )


def _chance(chance: float) -> str:
    return f"1 in {1 / chance:,.0f}" if 1e-12 < chance < 0.1 else figure(chance)


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
        said = [text for text in dict.fromkeys(texts) if text]
        if said:
            parts.append(tag("div", tag("h4", title), [tag("p", _sentence(text)) for text in said], class_="advice"))
    return parts


def _key_figure(judged: Judged) -> Html:
    return tag(
        "p",
        tag("strong", figure(judged.last)),
        tag("span", f" {judged.unit}" if judged.unit else "", " now"),
        tag("span", f"healthy: {judged.wish}", class_="wish"),
        class_="keyfigure",
    )


def _where(judged: Judged) -> Html:
    """Say in which steps a curve is out of its range."""
    outside_, known = judged.outside, [step for step, _ in judged.each or judged.curve]
    if not outside_:
        return tag("p", "No step is out of range by itself.", class_="quiet where")
    count = (
        sum(any(first <= step <= last for first, last in outside_) for step in known) if len(outside_) < 50 else None
    )
    spans = [_stretch(each) for each in outside_[-5:]]
    more = len(outside_) - len(spans)
    told = f"Out of range in steps {', '.join(spans)}" + (f", and {more} stretches before" if more else "")
    part = f" ({count:,} of {len(known):,})" if count is not None else ""
    return tag("p", f"{told}{part}.", class_="quiet where")


def _stretch(stretch: Stretch) -> str:
    first, last = stretch
    return exactly(first) if first == last else f"{exactly(first)} to {exactly(last)}"


def steps_of(run: ReportRun, other: ReportRun | None) -> tuple[float, float]:
    """Return the axis of steps that all charts have."""
    runs = [run] if other is None else [run, other]
    return float(min(each.first_step for each in runs)), float(max(each.last_step for each in runs))


def headline_chart(judged: Judged, other: Judged | None, steps: tuple[float, float], *, small: bool = False) -> Html:
    """Return a headline metric's chart."""
    mean = f"mean of {WINDOW}" + ("" if small else " log steps") if judged.each else "cluster"
    lines = []
    if judged.each and not (small and other):
        lines.append(Line(label="each step" if small else "each log step", points=judged.each, look="faint"))
    lines.append(Line(label=f"A, {mean}" if other else mean, points=judged.curve))
    if judged.worst and not small:
        who = "worst rank, as if all were" if judged.worst_rank is None else f"rank {judged.worst_rank}"
        lines.append(Line(label=who, points=judged.worst, look="rank"))
    if other is not None:
        lines.append(Line(label=f"B, {mean}", points=other.curve, look="other"))
    return Chart(
        title=judged.row.wandb_key,
        what=f"{judged.row.description} In {judged.unit}." if judged.unit else judged.row.description,
        lines=lines,
        band=judged.band,
        outside=judged.outside,
        steps=steps,
        small=small,
        columns=200 if small else 500,
    ).html()


def looked_at(runs: Sequence[ReportRun]) -> Html | None:
    """Return what was looked at and is well, or not known."""
    entries = [
        tag(
            "li",
            badge(topic.severity),
            tag(
                "div",
                key_of(place) if len(runs) > 1 else None,
                tag("b", outside(topic.title)),
                [tag("p", finding.summary) for finding in topic.findings],
            ),
        )
        for place, run in enumerate(runs)
        for topic in run.topics
        if topic.severity not in BAD
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
