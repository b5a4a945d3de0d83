"""Saved shards on another number of ranks: nothing is lost that has room."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otel_train.exceptions import StateMismatchError
from otel_train.ledger import StateLedger, stable_hash
from otel_train.ledger.hashing import keys_of, owners_of
from otel_train.ledger.resharding import merge


def saved_shards(world_size: int, steps: list[list[int]]) -> list[dict[str, Any]]:
    """Return the states of a job of that many ranks that stored these ids, a list for each step."""
    states = []
    for rank in range(world_size):
        ledger = StateLedger((), capacity=8, dtype=torch.int64)
        for step, ids in enumerate(steps, start=1):
            own = torch.tensor(ids, dtype=torch.int64)
            own = own[owners_of(keys_of(own), world_size) == rank]
            ledger.store(own, own)
            ledger.end_step(step)
        states.append({**ledger.state_dict(), "rank": rank, "world_size": world_size})
    return states


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.lists(st.integers(0, 40), max_size=10), max_size=6))
def test_entries_move_to_new_owners(old: int, new: int, steps: list[list[int]]) -> None:
    """The new ranks together hold what the old ones held, each its own, in the order of the steps of use."""
    states = saved_shards(old, steps)
    parts = [merge(states, rank, new) for rank in range(new)]
    for rank, part in enumerate(parts):
        assert part["keys"].equal(keys_of(part["states"]))
        assert set(owners_of(torch.cat([part["keys"], part["recently_evicted"]]), new).tolist()) <= {rank}
        assert part["last_used_step"].equal(part["last_used_step"].sort().values)
    for name in ("keys", "recently_evicted"):
        both = [sorted(torch.cat([state[name] for state in side]).tolist()) for side in (states, parts)]
        assert both[0] == both[1]


@pytest.mark.parametrize("old", [1, 2])
def test_smaller_ledger_keeps_newest(old: int) -> None:
    """Entries without room are evicted, least recently used first: counted, remembered, and sent as events."""
    events: list[dict[str, Any]] = []
    ledger = StateLedger((), capacity=3, dtype=torch.int64, events=events.append)
    ledger.load_state_dict(saved_shards(old, [[1, 2, 3], [4, 5], [1]]))
    assert sorted(ledger.state_dict()["states"].tolist()) == [1, 4, 5]
    assert sorted(event["key"] for event in events if event["event"] == "evict") == sorted(map(stable_hash, (2, 3)))
    ledger.store([3], torch.tensor([3]))
    assert ledger.drain_measurements(4)[:4] == [3, 0, 6, 1]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),  # ranks
            st.integers(1, 7),  # capacity
            st.lists(st.lists(st.integers(0, 15), max_size=8), max_size=4),  # ids of each step
            st.booleans(),  # whether the interval is drained before it is saved
        ),
        min_size=1,
        max_size=5,
    )
)
def test_resume_loses_no_count(attempts: list[Any]) -> None:
    """With any ranks and capacity, within an interval or not: what was written is held or was counted as evicted."""
    states: list[dict[str, Any]] = []
    fresh = evicted = 0.0
    for world_size, capacity, steps, drained in attempts:
        ranks = [StateLedger((), capacity=capacity, recently_evicted=99, dtype=torch.int64) for _ in range(world_size)]
        for rank, ledger in enumerate(ranks):
            ledger._exchange.rank, ledger._exchange.world_size = rank, world_size
            if states:
                ledger.load_state_dict(states if len(states) != world_size else states[rank])
            for ids in steps:
                own = torch.tensor(sorted(set(ids)), dtype=torch.int64)
                own = own[owners_of(keys_of(own), world_size) == rank]
                ledger._store_state(keys_of(own), own)
                ledger.end_step(ledger.step)
            if drained:
                evictions, _, writes, *_ = ledger.drain_measurements()
                fresh, evicted = fresh + writes, evicted + evictions
        states = [ledger.state_dict() for ledger in ranks]
    fresh += sum(state["interval"]["fresh_writes"] for state in states)
    evicted += sum(state["interval"]["evictions"] for state in states)
    assert fresh - evicted == sum(len(state["keys"]) for state in states)
    held = torch.cat([state["keys"] for state in states]).tolist()
    remembered = torch.cat([torch.cat([state["keys"], state["recently_evicted"]]) for state in states])
    written = {stable_hash(stream) for *_, steps, _ in attempts for ids in steps for stream in ids}
    assert len(held) == len(set(held))
    assert sorted(remembered.tolist()) == sorted(written)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda _: {"plan": {}}, "a state of StateLedger must have .* 'world_size' is missing"),
        (lambda state: {**state, "keys": [1]}, "keys, steps and states as tensors"),
        (lambda state: {**state, "keys": state["keys"][:1]}, "1 keys and 2 states"),
        (lambda state: {**state, "keys": state["keys"][:1].expand(2)}, "a key twice"),
        (lambda state: {**state, "interval": {"evictions": 3}}, "'stale_evictions' is missing"),
        (lambda state: {**state, "step": "x"}, "wrong form"),
        (lambda _: None, "must be what its state_dict"),
        (lambda _: [], "all ranks in order"),
    ],
)
def test_foreign_state_raises(change: Any, complaint: str) -> None:
    """The state of another class, of another version, or one that is damaged is named, with nothing changed."""
    ledger = StateLedger((), capacity=3, dtype=torch.int64)
    ledger.store([7], torch.tensor([7]))
    with pytest.raises(StateMismatchError, match=complaint):
        ledger.load_state_dict(change(saved_shards(1, [[1, 2]])[0]))
    assert ledger.fetch([7]).found.all()


def test_rings_join_by_new_ends() -> None:
    """Keys that were evicted last on their old ranks are the newest on the new one."""
    states = saved_shards(2, [])
    states[0]["recently_evicted"], states[1]["recently_evicted"] = torch.tensor([1, 2, 3]), torch.tensor([4, 5])
    assert merge(states, 0, 1)["recently_evicted"].tolist() == [1, 2, 4, 3, 5]


@pytest.mark.parametrize("change", [lambda states: states[:1], lambda states: states[::-1], lambda states: states[2:]])
def test_incomplete_list_raises(change: Any) -> None:
    """The state of a rank that is not there is missed."""
    with pytest.raises(StateMismatchError, match="all ranks in order"):
        StateLedger((), capacity=3, dtype=torch.int64).load_state_dict(change(saved_shards(2, [[1]])))
