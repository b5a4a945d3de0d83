"""KeyIndex, the order of use and the ring of evicted keys, against dicts."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from otel_train.ledger.evicted import EvictedKeys
from otel_train.ledger.hashing import keys_of
from otel_train.ledger.index import KeyIndex


@given(st.lists(st.sets(st.integers(-(2**63), 2**63 - 1) | st.integers(-60, 60), max_size=30), max_size=20))
def test_equals_a_dict(batches: list[set[int]]) -> None:
    """Every batch of inserts and removals leaves what a dict would hold."""
    capacity = 40
    index, model, position = KeyIndex(capacity), dict[int, int](), 0
    for batch in batches:
        gone = [key for key in batch if key in model]
        index.remove(torch.tensor(gone, dtype=torch.int64))
        for key in gone:
            del model[key]
        new = [key for key in batch if key not in gone][: capacity - len(model)]
        index.insert(torch.tensor(new, dtype=torch.int64), torch.arange(position, position + len(new)))
        model |= {key: position + offset for offset, key in enumerate(new)}
        position += len(new)
        asked = [*batch, *model, 61]
        assert index.lookup(torch.tensor(asked)).tolist() == [model.get(key, -1) for key in asked]
        assert len(index) == len(model)


def test_holds_many_keys() -> None:
    """A full index of many keys finds each of them."""
    keys = torch.randint(-(2**63), 2**63 - 1, (70_000,), generator=torch.Generator().manual_seed(0))
    index = KeyIndex(len(keys))
    index.insert(keys, torch.arange(len(keys)))
    assert index.lookup(keys).equal(torch.arange(len(keys)))


def test_reuse_distances_precede_the_call() -> None:
    """Each key's reuse distance follows from its position before the call, whichever others leave with it."""
    keys = keys_of(torch.arange(2500))
    ring, order = EvictedKeys(len(keys)), torch.randperm(len(keys), generator=torch.Generator().manual_seed(0))
    ring.add(keys)
    assert ring.take(keys[order]).tolist() == (len(keys) - order).tolist()
    assert len(ring) == 0


def test_evicted_again_moves_to_end() -> None:
    """The ring keeps one entry for a key, and drops the oldest eviction first."""
    ring, seen = EvictedKeys(3), []
    for batch in ([1, 2, 3], [2], [4], [5, 6, 7, 8]):
        ring.add(torch.tensor(batch))
        seen.append(list(ring))
    assert seen == [[1, 2, 3], [1, 3, 2], [3, 2, 4], [6, 7, 8]]
