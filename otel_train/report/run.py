"""The subject of a page: a run with its findings, by topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from otel_train.catalogue import HEADLINE, JUDGED, JUDGED_KEYS, Metric, Ranges, headline_row, healthy_range
from otel_train.diagnose.capacity import CapacityPlan
from otel_train.diagnose.finding import INFORMS, WORST_FIRST, WRONG, Finding, Severity
from otel_train.number_text import counted
from otel_train.read.history import History
from otel_train.report.judged_curve import JudgedCurve, judged_curve


@dataclass(frozen=True, slots=True)
class Topic:
    """Findings that belong together: those of a headline metric and its maximum, or a single one."""

    title: str
    findings: tuple[Finding, ...]
    metric: Metric | None = None

    @property
    def severity(self) -> Severity:
        """The worst severity of its findings."""
        return min((finding.severity for finding in self.findings), key=WORST_FIRST.index)


@dataclass(frozen=True, kw_only=True)
class ReportRun:
    """A run with its findings."""

    history: History
    findings: Sequence[Finding]
    plan: CapacityPlan | None = None
    """The miss-ratio curve."""
    ranges: Ranges = healthy_range
    """Healthy ranges, by headline key."""
    config: str = ""
    """The job's TOML; empty where there is none."""

    @cached_property
    def topics(self) -> list[Topic]:
        """The findings, those of one metric together, the worst first."""
        groups: dict[str, list[Finding]] = {}
        for finding in self.findings:
            judged = finding.check in JUDGED_KEYS
            groups.setdefault(headline_row(finding.check).wandb_key if judged else finding.check, []).append(finding)
        metrics = {row.wandb_key: row for row in JUDGED}
        topics = [Topic(title, tuple(members), metrics.get(title)) for title, members in groups.items()]
        return sorted(topics, key=lambda topic: WORST_FIRST.index(topic.severity))

    def judged(self, key: str) -> JudgedCurve:
        """Return the curve of a judged metric, by the row's wandb key; the newest one is kept."""
        if key not in self._kept:
            self._kept.clear()
            self._kept[key] = judged_curve(self.history, headline_row(key), self.ranges(key), self._named.get(key))
        return self._kept[key]

    @cached_property
    def _kept(self) -> dict[str, JudgedCurve]:
        return {}

    @cached_property
    def _named(self) -> dict[str, int | None]:
        """Ranks that are named where something is wrong."""
        return {
            topic.title: next((finding.rank for finding in topic.findings if finding.rank is not None), None)
            for topic in self.topics
            if topic.severity in WRONG
        }

    @cached_property
    def rows(self) -> list[Metric]:
        """The metrics that a report of this run shows: the headline ones, and those of the others that it has."""
        return [row for row in JUDGED if row in HEADLINE or self.history.cluster.finite_values(row.wandb_key)]

    def severity(self, key: str) -> Severity:
        """Return the severity of a judged metric."""
        return next((topic.severity for topic in self.topics if topic.title == key), Severity.UNKNOWN)

    @property
    def wrong(self) -> list[Topic]:
        """The topics that somebody must look at."""
        return [topic for topic in self.topics if topic.severity in WRONG]

    @property
    def verdict(self) -> Severity:
        """The worst severity of the run that says whether something is wrong."""
        return next((topic.severity for topic in self.topics if topic.severity not in INFORMS), Severity.UNKNOWN)

    @property
    def last_step(self) -> int:
        """The newest step that has values; 0 where none has."""
        tracks = [self.history.cluster, *self.history.ranks.values()]
        return max((track.steps[-1] for track in tracks if track.steps), default=0)

    @property
    def first_step(self) -> int:
        """The oldest step that has values; 0 where none has."""
        tracks = [self.history.cluster, *self.history.ranks.values()]
        return min((track.steps[0] for track in tracks if track.steps), default=0)

    @property
    def times_ns(self) -> tuple[int, int] | None:
        """Times at which the first and the last step with values ended, nanoseconds since the epoch."""
        tracks = [track for track in (self.history.cluster, *self.history.ranks.values()) if track.times_ns]
        if not tracks:
            return None
        return min(track.times_ns[0] for track in tracks), max(track.times_ns[-1] for track in tracks)


def sentence(run: ReportRun) -> str:
    """Return the verdict in one sentence."""
    keys = [finding for finding in run.findings if finding.check in JUDGED_KEYS]
    wrong = [finding for finding in keys if finding.severity in WRONG]
    others = [finding for finding in run.findings if finding.check not in JUDGED_KEYS and finding.severity in WRONG]
    unknown = sum(finding.severity is Severity.UNKNOWN for finding in keys)
    clauses = []
    if wrong:
        since = [finding.since_step for finding in wrong if finding.since_step is not None]
        when = f" since step {min(since):,}" if since else ""
        clauses.append(f"{len(wrong)} of {len(keys)} figures out of range{when}")
    elif keys and unknown < len(keys):
        judged = len(keys) - unknown
        clauses.append(f"{judged} figures in their ranges" if unknown else f"All {judged} figures in their ranges")
    else:
        clauses.append("Nothing is known of the figures")
    if unknown and unknown < len(keys):
        clauses.append(f"{unknown} not known")
    if others:
        clauses.append(counted(len(others), "further complaint"))
    return "; ".join(clauses) + "."
