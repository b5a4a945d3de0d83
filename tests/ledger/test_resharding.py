"""Saved shards on another number of ranks: nothing is lost that has room."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otel_train.exceptions import StateMismatchError
from otel_train.ledger import StateLedger
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
def test_every_entry_moves_to_its_new_owner(old: int, new: int, steps: list[list[int]]) -> None:
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


def test_a_smaller_ledger_keeps_the_newest() -> None:
    """With less room the entries that were used last stay."""
    ledger = StateLedger((), capacity=3, dtype=torch.int64)
    ledger.load_state_dict(saved_shards(2, [[1, 2, 3], [4, 5], [1]]))
    assert sorted(ledger.state_dict()["states"].tolist()) == [1, 4, 5]
    assert ledger.drain_measurements(4)[:4] == [0, 0, 0, 0]


def test_rings_are_joined_by_their_new_ends() -> None:
    """Keys that were evicted last on their old ranks are the newest on the new one."""
    states = saved_shards(2, [])
    states[0]["recently_evicted"], states[1]["recently_evicted"] = torch.tensor([1, 2, 3]), torch.tensor([4, 5])
    assert merge(states, 0, 1)["recently_evicted"].tolist() == [1, 2, 4, 3, 5]


@pytest.mark.parametrize("change", [lambda states: states[:1], lambda states: states[::-1], lambda states: states[2:]])
def test_an_incomplete_list_is_refused(change: Any) -> None:
    """The state of a rank that is not there is missed."""
    with pytest.raises(StateMismatchError, match="all ranks in order"):
        StateLedger((), capacity=3, dtype=torch.int64).load_state_dict(change(saved_shards(2, [[1]])))
