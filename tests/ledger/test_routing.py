"""Keys and their owners: the same everywhere and for good."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otel_train.ledger import hashing, stable_hash
from otel_train.ledger.hashing import keys_of, owners_of
from otel_train.ledger.int_buffer import IntBuffer
from otel_train.ledger.routing import route
from otel_train.native import core

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


@pytest.mark.parametrize("plan", [route] if core is None else [route, core.route])
@given(keys=KEYS, world_size=st.integers(1, 9))
def test_route_to_owners_and_back(plan: Any, keys: list[int], world_size: int) -> None:
    """Sent keys are sorted by owner and in their order, and the inverse brings them back."""
    order, inverse, sent, sends = (array("q", bytes(8 * size)) for size in (*[len(keys)] * 3, world_size))
    plan(array("q", keys), len(keys), order, inverse, sent, sends)
    owned = [[key for key in keys if key % 2**64 % world_size == rank] for rank in range(world_size)]
    assert sent.tolist() == [key for part in owned for key in part] == [keys[index] for index in order]
    assert sends.tolist() == list(map(len, owned))
    assert [sent[index] for index in inverse] == keys
    assert owners_of(torch.tensor(keys, dtype=torch.int64), world_size).bincount(minlength=world_size).tolist() == list(
        map(len, owned)
    )


class Name(str):
    """A string with an equality of its own."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise RuntimeError(other)

    __hash__ = str.__hash__


@pytest.mark.parametrize("implementation", [hashing.hash_ids] if core is None else [hashing.hash_ids, core.hash_ids])
def test_seen_strings_are_bounded(implementation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are right whether an id was seen, forgotten or is too long; no more strings are kept than it says."""
    monkeypatch.setattr(hashing, "_hash_ids", implementation)
    monkeypatch.setattr(hashing, "MOST", 4)
    monkeypatch.setattr(hashing, "LONGEST", 5)
    seen, keys, hashed = hashing.SeenIds(), IntBuffer(), list[str]()

    def counted(stream_id: Any) -> int:
        hashed.extend([str(stream_id)] * isinstance(stream_id, str))
        return stable_hash(stream_id)

    monkeypatch.setattr(hashing, "stable_hash", counted)
    calls: list[Any] = [
        ["a", "b"],
        ("b", 7, "a"),
        ["c", "d", "e"],
        ["a", "f"],
        [Name("a")],
        ["too long"] * 2,
        ["g", "h"],
    ]
    for ids in [*calls, ["読", np.int64(3), ""], *[[f"{n}"] for n in range(9)], ["a"]]:
        seen.write_keys(ids, keys)
        assert keys.numbers[: keys.count].tolist() == [stable_hash(one) for one in ids]
        assert len(seen._young) < 4 >= len(seen._old)
    assert hashed[:10] == ["a", "b", "c", "d", "e", "f", "a", "too long", "too long", "g"]
