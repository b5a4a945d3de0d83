"""KeyIndex against a dict."""

import torch
from hypothesis import given
from hypothesis import strategies as st

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
