"""The test of the mix: it holds whenever one looks, and it detects a drift and its beginning."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from otel_train.diagnose import drift
from otel_train.diagnose.drift import ALPHA, STRENGTH, find_drift, test_mix
from otel_train.diagnose.finding import Severity
from otel_train.read import History, MixInterval

Shares = tuple[float, ...]


def drawn(rng: random.Random, step: int, targets: Shares, real: Sequence[float], picks: int = 8) -> MixInterval:
    """Return an interval whose picks are drawn by the real shares."""
    counts = [0.0] * len(targets)
    for modality in rng.choices(range(len(targets)), real, k=picks):
        counts[modality] += 1
    return MixInterval(step, tuple(counts), targets)


def test_false_alarms_are_rare() -> None:
    """Of 300 runs whose targets change on the way, those that ever reach a chance of c are at most c of all."""
    rng = random.Random(3)
    chances = []
    for _ in range(300):
        targets = [(0.5, 0.3, 0.2) if step < 40 else (0.2, 0.3, 0.5) for step in range(100)]
        chances.append(test_mix([drawn(rng, step, shares, shares) for step, shares in enumerate(targets)]).chance)
    for chance in (0.5, 0.2, 0.1, 0.02):
        slack = 3 * math.sqrt(chance * (1 - chance) / len(chances))
        assert sum(reached <= chance for reached in chances) / len(chances) <= chance + slack
    assert min(chances) > ALPHA


@pytest.mark.parametrize(("change", "within"), [(0, 120), (600, 300)])
def test_drift_and_begin_are_detected(change: int, within: int) -> None:
    """A share of 0.6 instead of 0.5 is detected within 8 picks x `within` steps, early or late in a run."""
    rng = random.Random(5)
    steps = range(1, change + within + 1)
    intervals = [drawn(rng, step, (0.5, 0.5), (0.6, 0.4) if step > change else (0.5, 0.5)) for step in steps]
    finding = find_drift(History("a trace", "run", modalities=("code", "prose"), mix=intervals))
    assert (finding.severity, (finding.chance or 1) < ALPHA) == (Severity.WARNING, True)
    assert finding.since_step is not None
    assert abs(finding.since_step - change) < 60
    assert finding.evidence[-2].startswith("prose: ")  # which lacks, first


def test_bet_is_likelihood_ratio() -> None:
    """With constant targets a bet is the Dirichlet-multinomial's probability over the targets', by the counts alone."""
    shares = (0.75, 0.25)
    intervals = [MixInterval(1, (20.0, 12.0), shares), MixInterval(2, (18.0, 22.0), shares)]
    test = test_mix(intervals)

    def bet(code: float, prose: float) -> float:
        counted = [(STRENGTH * share, count) for share, count in zip(shares, (code, prose), strict=True)]
        gained = math.lgamma(STRENGTH) - math.lgamma(STRENGTH + code + prose)
        gained += sum(math.lgamma(prior + count) - math.lgamma(prior) for prior, count in counted)
        return gained - code * math.log(0.75) - prose * math.log(0.25)

    whole, second = bet(38, 34), bet(18, 22)
    # Half of the stake on the run, a quarter on the second interval, a quarter not yet.
    assert test.log_evidence == pytest.approx(math.log(math.exp(whole) / 2 + math.exp(second) / 4 + 1 / 4))


def test_core_judges_as_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core's bets, evidence and beginning of a drift are those of Python, to the last bit."""
    rng = random.Random(7)
    targets = [(0.5, 0.3, 0.2) if step < 300 else (0.3, 0.7, 0.0) for step in range(600)]
    intervals = [
        drawn(rng, step, shares, shares if step < 450 else (0.5, 0.5, 0.0)) for step, shares in enumerate(targets)
    ]
    results = []
    for _ in range(2):
        test = test_mix(intervals)
        results.append((test.log_evidence.hex(), test.detected, test.best, test.change()))
        monkeypatch.setattr(drift, "core", None)
    assert results[0] == results[1]
    assert results[0][1] is not None


def test_impossible_pick_is_proof() -> None:
    """A pick of a modality without a share has the chance 0, and the drift begins there."""
    mix = [MixInterval(1, (8.0, 0.0), (1.0, 0.0)), MixInterval(2, (7.0, 1.0), (1.0, 1e-17))]
    finding = find_drift(History("a trace", "run", modalities=("code", "prose"), mix=mix))
    assert (finding.severity, finding.chance, finding.since_step) == (Severity.WARNING, 0.0, 2)


def test_negligible_drift_is_ok() -> None:
    """A drift of half a percentage point is not a finding, even when ten million picks make it certain."""
    mix = [MixInterval(step, (50_500.0, 49_500.0), (0.5, 0.5)) for step in range(100)]
    assert find_drift(History("a trace", "run", modalities=("code", "prose"), mix=mix)).severity is Severity.OK


def test_missing_picks_are_unknown() -> None:
    """Wandb files and Prometheus have shares over a horizon and no picks by modality, so the drift is unknown."""
    assert find_drift(History("wandb", "run")).severity is Severity.UNKNOWN
