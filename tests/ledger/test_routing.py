"""Keys and their owners: the same everywhere and for good."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otel_train.ledger import stable_hash
from otel_train.ledger.hashing import keys_of, owners_of
from otel_train.ledger.routing import last_occurrences, plan_route

KEYS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), max_size=40)


@pytest.mark.parametrize(
    ("stream_id", "key"),
    [
        (0, 0xE220A8397B1DCDAF - 2**64),  # splitmix64's first output for the seed 0
        (-1, -1956407806741107680),
        ("", -5426141060434712860),
        ("doc-17", -4901987963951175370),
        ("読", 4510190914278480014),
    ],
)
def test_keys_never_change(stream_id: str | int, key: int) -> None:
    """Every later version finds a saved ledger again: these keys are part of its format."""
    assert stable_hash(stream_id) == key


@pytest.mark.parametrize("stream_id", [np.int64(7), np.uint8(7), torch.tensor(7)])
def test_accepts_numbers_of_other_libraries(stream_id: Any) -> None:
    """Ids of NumPy and tensors of one number, as a batch has them, are the same streams."""
    assert stable_hash(stream_id) == stable_hash(7)


@given(KEYS)
def test_tensor_keys_equal_integer_keys(ids: list[int]) -> None:
    """Ids in a tensor and the same in a list are the same streams."""
    assert keys_of(torch.tensor(ids, dtype=torch.int64)).tolist() == keys_of(ids).tolist()


@given(KEYS, st.integers(1, 9))
def test_route_to_owners_and_back(keys: list[int], world_size: int) -> None:
    """Sent keys are sorted by owner and in their order, and the inverse brings them back."""
    given_keys = torch.tensor(keys, dtype=torch.int64)
    route = plan_route(given_keys, world_size)
    sent = given_keys[route.order]
    owned = [[key for key in keys if key % 2**64 % world_size == rank] for rank in range(world_size)]
    assert [part.tolist() for part in torch.split(sent, route.sends)] == owned
    assert sent[route.inverse].equal(given_keys)
    assert owners_of(given_keys, world_size).bincount(minlength=world_size).tolist() == route.sends


@given(KEYS)
def test_last_equal_key_wins(keys: list[int]) -> None:
    """Of several writes of a key the index of the last one is kept, in ascending order."""
    expected = sorted({key: index for index, key in enumerate(keys)}.values())
    assert last_occurrences(torch.tensor(keys, dtype=torch.int64)).tolist() == expected
