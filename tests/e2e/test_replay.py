"""The replay itself, on small event files whose values were worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

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


def test_ages_count_from_opening(tmp_path: Path) -> None:
    """A mean over readers is no mean of ranks' means; a restart keeps a reader's age; a closed slot has none."""
    first = [slot("open", 1, 0), slot("open", 1, 1), slot("open", 1, 2), pick(1), slot("restart", 2, 0), drain(4)]
    second = [slot("open", 2, 0), slot("open", 1, 1), pick(3), slot("close", 4, 1), drain(4)]
    (values,) = replay_events(tmp_path, first, second)
    # Rank 0: slot 0 was picked in 1, slots 1 and 2 never: 3, 3, 3. Rank 1: slot 0 picked in 3: 1; slot 1 is closed.
    assert values["train/step"] == 4
    assert (values["stream_mixing/active_readers"], values["stream_mixing/restarts"]) == (4, 1)
    assert values["stream_mixing/staleness_mean"] == 10 / 4  # the mean of the ranks' means would be 2
    assert values["stream_mixing/staleness_max"] == 3


def test_switches_pair_picks_of_rank(
    tmp_path: Path,
) -> None:
    """The first pick of a rank has no pair; the first of a later interval has."""
    first = [slot("open", 1, 0), pick(1), pick(1, modality="prose"), drain(1), pick(2), drain(2)]
    second = [slot("open", 1, 0), pick(1), pick(1), pick(1), drain(1), pick(2), drain(2)]
    rows = replay_events(tmp_path, first, second)
    # Step 1: of rank 0's 1 pair 1 switches, of rank 1's 2 none: 1/3. Step 2: prose-code and code-code: 1/2.
    assert [row["stream_mixing/picks"] for row in rows] == [5, 2]
    assert [row["stream_mixing/switch_rate"] for row in rows] == [1 / 3, 1 / 2]


def test_divergence_decays_by_own_picks(tmp_path: Path) -> None:
    """Only code, then half and half: what went before weighs exp(-picks / horizon) of what it did."""
    turned: Event = {"event": "weights", "step": 2, "weights": {"code": 1.0, "prose": 1.0}}
    first = [slot("open", 1, 0), pick(1), pick(1), drain(1), turned, pick(2, modality="prose"), pick(2), drain(2)]
    second = [slot("open", 1, 0), drain(1), drain(2)]
    rows = replay_events(tmp_path, first, second)
    # Step 1: p = (1, 0), q = (3/4, 1/4), m = (7/8, 1/8):
    #   (log2(8/7) + 3/4 log2(6/7) + 1/4 log2(2)) / 2.
    # Step 2: k = exp(-2/4); c = (2k + 1, 1) and t = (1.5k + 1, 0.5k + 1), both of the sum 2k + 2.
    k = math.exp(-0.5)
    p, q = (2 * k + 1) / (2 * k + 2), (1.5 * k + 1) / (2 * k + 2)
    m = (p + q) / 2
    to_p = p * math.log2(p / m) + (1 - p) * math.log2((1 - p) / (1 - m))
    to_q = q * math.log2(q / m) + (1 - q) * math.log2((1 - q) / (1 - m))
    expected = [(math.log2(8 / 7) + 0.75 * math.log2(6 / 7) + 0.25) / 2, (to_p + to_q) / 2]
    assert [row["stream_mixing/mix_divergence"] for row in rows] == pytest.approx(expected, rel=1e-9)


def test_false_eviction_counts_once(tmp_path: Path) -> None:
    """A held key is not a fresh write; both reasons are remembered and counted apart; a wipe forgets."""
    first = [store(1, 1), store(1, 1), store(1, 2), evict(1, 1), evict(1, 2, "stale"), store(1, 1), store(1, 2)]
    wiped: list[Event] = [evict(2, 1), {"event": "wipe", "step": 2}, store(2, 1), store(2, 2)]
    rows = replay_events(tmp_path, [*first, drain(1), *wiped, drain(2)], [store(1, 3), drain(1), drain(2)])
    # Step 1: 1, 2 fresh, both evicted, both fresh again and false; rank 1 adds a fresh one. Step 2: after the wipe 1
    # (evicted before it) and 2 (held before it) are fresh again, neither is false.
    names = ("evictions", "stale_evictions", "fresh_writes", "fresh_writes_max", "false_evictions")
    assert [[row[f"ledger/{name}"] for name in names] for row in rows] == [[1, 1, 5, 4, 2], [1, 0, 2, 2, 0]]


def test_ring_drops_oldest_eviction(tmp_path: Path) -> None:
    """A ring of two forgets a third eviction's oldest, but only if none of the two was written since."""
    room = [store(1, 1), store(1, 2), store(1, 3), evict(1, 1), evict(1, 2), store(1, 2), evict(1, 3), drain(1)]
    full = [evict(3, 2), evict(3, 1), store(3, 3), drain(3)]
    rows = replay_events(tmp_path, [*room, store(2, 1), drain(2), *full], ring=2)
    # Step 1: [1, 2]; 2 is written, false, and leaves: [1]; then [1, 3]. Step 2: 1 is false and leaves: [3].
    # Step 3: [3, 2], then [2, 1]: 3 is fresh but was forgotten.
    assert [row["ledger/fresh_writes"] for row in rows] == [4, 1, 1]
    assert [row["ledger/false_evictions"] for row in rows] == [1, 1, 0]


def test_empty_denominators_give_zero(tmp_path: Path) -> None:
    """Without a reader, a pick and an entry all 15 values are 0."""
    (values,) = replay_events(tmp_path, [drain(1)])
    assert values.pop("train/step") == 1
    assert list(values.values()) == [0] * 15


def test_different_drained_steps_raise(tmp_path: Path) -> None:
    """Such files are of no one run."""
    with pytest.raises(ValueError, match="drained different steps"):
        replay_events(tmp_path, [drain(1), drain(2)], [drain(1), drain(3)])
