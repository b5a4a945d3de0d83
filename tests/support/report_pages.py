"""Runs for tests of the page about a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from otel_train.catalogue import MAX_SUFFIX, RANK_SUFFIX, rows
from otel_train.diagnose.capacity import advise
from otel_train.diagnose.examine import examine
from otel_train.read.history import History, Track, share_key, target_key
from otel_train.report import ReportRun, render_report

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BEGIN = 1_767_225_600_000_000_000
HOSTILE = (
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(2)>",
    "]]></style></title><svg onload=alert(3)>",
    "javascript:alert(4)",
    "\u202ertl\u2066\x00\x1b[31m\ud800",
    "w" * 512,
)


def a_history(
    steps: int = 60,
    *,
    run_id: str = "a-run",
    modalities: Sequence[str] = ("code", "prose"),
    world_size: int = 2,
    staleness: Callable[[int], float] = lambda _: 3.0,
    scalars: Sequence[str] = ("train/loss",),
) -> History:
    """Return a run that is healthy, except for the greatest age of a reader, which is as given."""
    history = History("nowhere", run_id, world_size=world_size, modalities=tuple(modalities))
    history.ranks = {rank: Track() for rank in range(world_size)}
    for step in range(1, steps + 1):
        values = {
            rows.PICKS.wandb_key: 4.0 * world_size,
            rows.ACTIVE_READERS.wandb_key: 4.0 * world_size,
            rows.RESTARTS.wandb_key: 0.0,
            rows.STALENESS_MEAN.wandb_key: 1 + math.sin(step / 5),
            rows.STALENESS_MAX.wandb_key: staleness(step),
            rows.STALENESS_MAX.wandb_key + RANK_SUFFIX: 1.0,
            rows.SWITCH_RATE.wandb_key: 0.6,
            rows.MIX_DIVERGENCE.wandb_key: 0.01,
            rows.RANKS.wandb_key: float(world_size),
            rows.STEP_DURATION.wandb_key: 0.1 + 0.01 * math.cos(step),
        }
        for row in (rows.EVICTIONS, rows.STALE_EVICTIONS, rows.FRESH_WRITES, rows.FALSE_EVICTIONS):
            values[row.wandb_key] = values[row.wandb_key + MAX_SUFFIX] = 0.0
        for name in modalities:
            values[share_key(name)] = (1 + 0.1 * math.sin(step / 9)) / len(modalities)
            values[target_key(name)] = 1 / len(modalities)
        values |= dict.fromkeys(scalars, 4 / step)
        history.cluster.add(step, BEGIN + step * 10**8, values)
        for track in history.ranks.values():
            track.add(step, BEGIN + step * 10**8, values)
    history.dropped = history.abandoned = 0.0
    return history


def a_run(history: History | None = None, config: str = "") -> ReportRun:
    """Return a run with its findings."""
    history = history or a_history()
    return ReportRun(history=history, findings=examine(history), plan=advise(history), config=config)


def starved() -> ReportRun:
    """Return a run with false evictions, and a reader that is never picked from step 11 on."""
    history = a_history(staleness=lambda step: float(max(0, step - 10)))
    false = rows.FALSE_EVICTIONS.wandb_key
    history.cluster.values[false] = history.cluster.values[false + MAX_SUFFIX] = [2.0] * 60
    history.facts = {"ledger.capacity": 8, "ledger.recently_evicted": 64, "mixing.horizon": 4096.0}
    history.reuse = (40.0, 30.0, 30.0, 15.0, 5.0, *(0.0 for _ in rows.REUSE_BOUNDS[4:]), 300.0)
    return a_run(history, config="[ledger]\ncapacity = 8\n")


def hostile() -> ReportRun:
    """Return a run in which every name is hostile."""
    history = a_history(run_id="".join(HOSTILE), modalities=HOSTILE, scalars=HOSTILE)
    history.source = HOSTILE[0]
    history.facts = dict(zip(HOSTILE, HOSTILE, strict=True))
    return a_run(history, config="\n".join(HOSTILE))


def page_of(run: ReportRun, other: ReportRun | None = None) -> str:
    """Return a page."""
    return render_report(run, other, now=NOW)
