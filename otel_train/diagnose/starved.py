"""Find what waits longer than its weight explains: a rank's readers, or a source that all ranks together hold."""

from __future__ import annotations

import math
from collections.abc import Sequence

from otel_train.catalogue import rows
from otel_train.diagnose.finding import Finding, Severity
from otel_train.read.history import History, MixInterval

CHANCE = 1e-6
"""A wait that is less likely is a starved reader's."""


def find_starved(history: History) -> list[Finding]:
    """Return the readers that wait longer than their weights explain; nothing where there are none."""
    if history.facts.get("mixing.scope") == "cluster":
        return _starved_sources(history)
    row = rows.STARVED_READERS
    curve = history.cluster.finite_curve(row.wandb_key)
    if not any(curve.values) or not curve.values[-1]:
        return []
    points = list(zip(curve.steps, curve.values, strict=True))
    starved = [(step, count) for step, count in points if count]
    begin = next((step for (_, last), (step, _) in zip(points[-2::-1], points[:0:-1], strict=True) if not last), None)
    ranks = sorted(rank for rank, track in history.ranks.items() if track.last(row.wandb_key) > 0)
    return [
        Finding(
            check=row.wandb_key,
            severity=Severity.WARNING,
            summary=f"{points[-1][1]:.0f} readers wait longer than their weights explain",
            since_step=round(starved[0][0] if begin is None else begin),
            rank=ranks[0] if ranks else None,
            chance=CHANCE,
            evidence=(f"on ranks {', '.join(map(str, ranks))}",) if ranks else (),
            cause="the mixer does not use the weight that is configured for a slot",
            remedy=row.remedy,
        )
    ]


def _starved_sources(history: History) -> list[Finding]:
    """Return the sources that none of the ranks has picked for too long, where the picks of all of them are here."""
    if len(history.ranks) < history.world_size:
        return []
    findings = []
    for index, source in enumerate(history.modalities):
        surprise, since = _misses(history.mix, index)
        if surprise > -math.log(CHANCE):
            findings.append(
                Finding(
                    check=rows.STARVED_READERS.wandb_key,
                    severity=Severity.WARNING,
                    summary=f"no rank picks {source}, for longer than its weight explains",
                    since_step=since,
                    chance=math.exp(-surprise),
                    cause="the mixer does not use the weight that is configured for it, or it has no data left",
                    remedy=rows.STARVED_READERS.remedy,
                )
            )
    return findings


def _misses(mix: Sequence[MixInterval], index: int) -> tuple[float, int | None]:
    """Return -log of the probability of the run of misses that a source is in, and the step that it began with."""
    surprise, since = 0.0, None
    for interval in reversed(mix):
        if interval.picks[index]:
            break
        share, draws = interval.shares[index], math.fsum(interval.picks) / interval.rows
        surprise += -math.log1p(-share) * draws if share < 1 else math.inf * draws if draws else 0.0
        since = interval.step
    return surprise, since
