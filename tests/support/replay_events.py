"""Small event files of a run, written by hand, and their replay."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.replay import replay

Event = dict[str, object]
WEIGHTS: Event = {"event": "weights", "step": 0, "weights": {"code": 3.0, "prose": 1.0}}


def slot(event: str, step: int, number: int) -> Event:
    """Return an event of a slot."""
    return {"event": event, "step": step, "slot": number, "stream": f"stream{number}", "modality": "code"}


def pick(step: int, number: int = 0, modality: str = "code") -> Event:
    """Return the event of a pick."""
    return {"event": "pick", "step": step, "slot": number, "stream": "a", "modality": modality, "tokens": 64}


def store(step: int, key: int) -> Event:
    """Return the event of a store."""
    return {"event": "store", "step": step, "key": key}


def evict(step: int, key: int, why: str = "overflow") -> Event:
    """Return the event of an eviction."""
    return {"event": "evict", "step": step, "key": key, "why": why}


def drain(step: int) -> Event:
    """Return the event of a drain."""
    return {"event": "drain", "step": step}


def replay_events(directory: Path, *ranks: list[Event], ring: int = 8, horizon: int = 4) -> list[dict[str, float]]:
    """Write a run's files, each rank's events after the weights, and replay them."""
    ledger = {"capacity": 4, "recently_evicted": ring}
    result = {"world_size": len(ranks), "steps": 2, "ledger": ledger, "mix_horizon": horizon}
    (directory / "result.json").write_text(json.dumps(result))
    (directory / "events").mkdir()
    for number, events in enumerate(ranks):
        lines = "".join(json.dumps(event) + "\n" for event in [WEIGHTS, *events])
        (directory / "events" / f"rank{number}.jsonl").write_text(lines)
    return replay(directory)
