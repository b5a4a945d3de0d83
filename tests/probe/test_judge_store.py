"""What a store has kept of a check becomes findings that name its settings."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from otel_train.catalogue.series_names import OF_RANK
from otel_train.diagnose.finding import Severity
from otel_train.otlp.answers import TAKEN
from otel_train.probe.judge_store import LABELS, NAMING, judge_older_points, judge_repetition, judge_store
from otel_train.probe.kept_points import Kept, KeptSeries, expected_names
from otel_train.probe.probe_run import AGES, ProbeRun

RUN = ProbeRun(begin_ms=1_796_000_000_000)
ALL_TIMES = (*RUN.step_times, *RUN.special_times.values(), *RUN.older_times.values())
NAMES = tuple(expected_names().values())
DOTTED = ("telemetry.doctor.probe", "telemetry.doctor.points", "telemetry.doctor.spread_bucket")
PROMOTED = dict.fromkeys(OF_RANK, RUN.run_id)


def kept(
    names: tuple[str, ...] = NAMES, labels: Mapping[str, str] = PROMOTED, times: tuple[int, ...] = ALL_TIMES
) -> Kept:
    """Return what a store has, the best by default."""
    samples = tuple((when, 1.0) for when in times)
    return Kept(tuple(KeptSeries({"__name__": name, **labels}, samples) for name in names))


def test_best_store_lacks_nothing() -> None:
    """A store with all settings has no finding to read."""
    answers = dict.fromkeys(AGES, TAKEN)
    findings = [judge_repetition(RUN, TAKEN, kept()), judge_older_points(RUN, answers, kept())]
    findings += judge_store(RUN, kept(), "http://store")
    assert {finding.check: finding.severity for finding in findings if finding.severity is not Severity.OK} == {}
    assert len(findings) == 6


@pytest.mark.parametrize(
    ("store", "check", "severity", "remedy"),
    [
        (kept(names=DOTTED), "names", Severity.WARNING, NAMING),
        (kept(names=NAMES[:2]), "names", Severity.WARNING, NAMING),
        (kept(labels={"instance": RUN.run_id}), "labels", Severity.WARNING, LABELS),
        (kept(labels={name.replace("_", "."): "1" for name in OF_RANK}), "labels", Severity.WARNING, NAMING),
        (kept(times=RUN.step_times), "NaN", Severity.NOTE, ""),
        (Kept(), "arrival", Severity.WARNING, "--query"),
    ],
)
def test_lacking_setting_is_named(store: Kept, check: str, severity: Severity, remedy: str) -> None:
    """Other names, labels that are not promoted or escaped, lost NaN, and nothing at all are findings of their own."""
    (finding,) = (finding for finding in judge_store(RUN, store, "http://store") if finding.check == check)
    assert finding.severity is severity
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("newest_lost", "severity"), [(0, Severity.WARNING), (1, Severity.WARNING), (2, Severity.NOTE), (3, Severity.OK)]
)
def test_window_is_measured(newest_lost: int, severity: Severity) -> None:
    """A window that is shorter than a minute or an hour is a warning, one that is shorter than a day a note."""
    times = list(RUN.older_times.values())[:newest_lost]
    store = kept(times=(*RUN.step_times, *times))
    assert judge_older_points(RUN, dict.fromkeys(AGES, TAKEN), store).severity is severity


def test_doubled_point_is_warning() -> None:
    """A store that keeps a repetition is told to deduplicate."""
    finding = judge_repetition(RUN, TAKEN, kept(times=ALL_TIMES + ALL_TIMES))
    assert (finding.severity, "dedup.minScrapeInterval" in finding.remedy) == (Severity.WARNING, True)
