"""What a page is about: a run, and what was found in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from otel_train.catalogue import HEADLINE, HEADLINE_KEYS, HealthyRange, Metric, headline_row, healthy_range
from otel_train.diagnose.capacity import CapacityPlan
from otel_train.diagnose.finding import Finding, Severity
from otel_train.read.history import History
from otel_train.report.judged import Judged, judged

ORDER = (Severity.CRITICAL, Severity.WARNING, Severity.UNKNOWN, Severity.OK)
"""The worst first."""
BAD = (Severity.CRITICAL, Severity.WARNING)


@dataclass(frozen=True, slots=True)
class Topic:
    """Findings that belong together: those of a headline metric and its maximum, or a single one."""

    title: str
    findings: tuple[Finding, ...]
    metric: Metric | None = None

    @property
    def severity(self) -> Severity:
        """The worst of its findings'."""
        return min((finding.severity for finding in self.findings), key=ORDER.index)


@dataclass(frozen=True, kw_only=True)
class ReportRun:
    """A run and what was found in it."""

    history: History
    findings: Sequence[Finding]
    plan: CapacityPlan | None = None
    """The miss-ratio curve."""
    ranges: Callable[[str], HealthyRange] = healthy_range
    """What is healthy, by headline key."""
    config: str = ""
    """The job's TOML; empty where there is none."""

    @cached_property
    def topics(self) -> list[Topic]:
        """The findings, those of one metric together, the worst first."""
        groups: dict[str, list[Finding]] = {}
        for finding in self.findings:
            headline = finding.check in HEADLINE_KEYS
            groups.setdefault(headline_row(finding.check).wandb_key if headline else finding.check, []).append(finding)
        metrics = {row.wandb_key: row for row in HEADLINE}
        topics = [Topic(title, tuple(found), metrics.get(title)) for title, found in groups.items()]
        return sorted(topics, key=lambda topic: ORDER.index(topic.severity))

    @cached_property
    def judged(self) -> dict[str, Judged]:
        """What the charts of the headline metrics show, by the row's wandb key."""
        named = {
            topic.title: next((each.rank for each in topic.findings if each.rank is not None), None)
            for topic in self.topics
            if topic.severity in BAD
        }
        return {
            row.wandb_key: judged(self.history, row, self.ranges(row.wandb_key), named.get(row.wandb_key))
            for row in HEADLINE
        }

    def severity(self, key: str) -> Severity:
        """Return how a headline metric is."""
        return next((topic.severity for topic in self.topics if topic.title == key), Severity.UNKNOWN)

    @property
    def bad(self) -> list[Topic]:
        """What is not as it should be."""
        return [topic for topic in self.topics if topic.severity in BAD]

    @property
    def verdict(self) -> Severity:
        """The worst that is known of the run."""
        known = [topic.severity for topic in self.topics if topic.severity is not Severity.UNKNOWN]
        return known[0] if known else Severity.UNKNOWN

    @property
    def last_step(self) -> int:
        """The newest step that anything is known of; 0 where nothing is."""
        tracks = [self.history.cluster, *self.history.ranks.values()]
        return max((track.steps[-1] for track in tracks if track.steps), default=0)

    @property
    def first_step(self) -> int:
        """The oldest step that anything is known of; 0 where nothing is."""
        tracks = [self.history.cluster, *self.history.ranks.values()]
        return min((track.steps[0] for track in tracks if track.steps), default=0)

    @property
    def times_ns(self) -> tuple[int, int] | None:
        """When the first and the last step that are known ended."""
        tracks = [track for track in (self.history.cluster, *self.history.ranks.values()) if track.times_ns]
        if not tracks:
            return None
        return min(track.times_ns[0] for track in tracks), max(track.times_ns[-1] for track in tracks)


def sentence(run: ReportRun) -> str:
    """Return the verdict in one sentence."""
    keys = [finding for finding in run.findings if finding.check in HEADLINE_KEYS]
    bad = [finding for finding in keys if finding.severity in BAD]
    others = [finding for finding in run.findings if finding.check not in HEADLINE_KEYS and finding.severity in BAD]
    unknown = sum(finding.severity is Severity.UNKNOWN for finding in keys)
    told = []
    if bad:
        since = [finding.since_step for finding in bad if finding.since_step is not None]
        when = f" since step {min(since):,}" if since else ""
        told.append(f"{len(bad)} of {len(keys)} figures out of range{when}")
    elif keys and unknown < len(keys):
        known = len(keys) - unknown
        told.append(f"All {known} figures in their ranges" if not unknown else f"{known} figures in their ranges")
    else:
        told.append("Nothing is known of the figures")
    if unknown and unknown < len(keys):
        told.append(f"{unknown} not known")
    if others:
        told.append(f"{len(others)} further complaint" + ("s" if len(others) > 1 else ""))
    return "; ".join(told) + "."
