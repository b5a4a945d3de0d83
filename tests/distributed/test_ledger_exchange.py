"""The sharded ledger over real gloo ranks: the same as one dict, whoever asks for what."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist

from otel_train.exceptions import OtelTrainError
from otel_train.ledger import StateLedger, stable_hash
from otel_train.ledger.hashing import keys_of, owners_of
from tests.support.ledger_model import Model
from tests.support.on_ranks import Job

pytestmark = [pytest.mark.ranks(), pytest.mark.parametrize("world_size", [1, 2, 3, 4])]
NAMES: list[str | int] = [*(f"doc-{number}" for number in range(10)), *range(10)]


def owner(stream_id: str | int, world_size: int) -> int:
    """Return the rank that owns a stream."""
    return stable_hash(stream_id) % 2**64 % world_size


@pytest.mark.parametrize(
    ("capacity", "max_idle_steps", "one_owner"),
    [(len(NAMES), None, False), (3, 2, False), (2, None, True), (1, None, False)],
    ids=["room for all", "little room", "one owner", "one entry a rank"],
)
def test_ledger_equals_one_dict(
    capacity: int, max_idle_steps: int | None, one_owner: bool, world_size: int, job: Job
) -> None:
    """Random calls, of any number of ids from any rank, give what one model for each owner gives.

    With room for all, what was stored last comes back; with little, each owner evicts, counts and orders as its model;
    a rank may own every key; and with one entry a rank nearly every store evicts.
    """
    ids = [name for name in NAMES if not one_owner or owner(name, world_size) == world_size - 1]
    rng = random.Random(0)
    ledger = StateLedger((2,), capacity=capacity, dtype=torch.int64, max_idle_steps=max_idle_steps)
    models = [Model(capacity, None, max_idle_steps) for _ in range(world_size)]
    for number in range(40):
        # Every rank draws what every rank asks for: an empty list and duplicates happen.
        asked = [rng.choices(ids, k=rng.choice((0, 0, 1, 4, 9))) for _ in range(world_size)]
        fetched = ledger.fetch(asked[job.rank])
        expected = [[None] * len(keys) for keys in asked]
        for of_rank, model in enumerate(models):
            owned = [(r, k) for r, keys in enumerate(asked) for k in range(len(keys))]
            owned = [(r, k) for r, k in owned if owner(asked[r][k], world_size) == of_rank]
            for (r, k), state in zip(owned, model.fetch([asked[r][k] for r, k in owned]), strict=True):
                expected[r][k] = state
        assert fetched.found.tolist() == [state is not None for state in expected[job.rank]]
        assert fetched.states.tolist() == [state or [0, 0] for state in expected[job.rank]]
        # Mostly what was fetched, by all ranks or by some of them only.
        written = [keys if rng.random() < 0.8 else rng.choices(ids, k=rng.choice((0, 1, 4))) for keys in asked]
        pairs = [(key, [r, number * 10 + k]) for r, keys in enumerate(written) for k, key in enumerate(keys)]
        own = [state for _, state in pairs if state[0] == job.rank]
        ledger.store(written[job.rank], torch.tensor(own, dtype=torch.int64).view(-1, 2))
        for of_rank, model in enumerate(models):
            model.store([(key, state) for key, state in pairs if owner(key, world_size) == of_rank])
        assert ledger.drain_measurements() == [model.drain() for model in models][job.rank]
        held = ledger.state_dict()
        assert held["keys"].tolist() == [stable_hash(key) for key in models[job.rank].entries]
        assert held["states"].tolist() == list(models[job.rank].entries.values())


def test_wrong_states_raise_everywhere(world_size: int, job: Job) -> None:
    """A wrong argument on one rank is an error on all, naming both forms, and the ledger goes on."""
    ledger, rank, last = StateLedger((2,), capacity=8), job.rank, world_size - 1
    dtype = torch.float64 if rank == last else torch.float32
    message = r"float32 \[1, 2\] on cpu, got float64 \[1, 2\] on cpu"
    with pytest.raises(OtelTrainError, match=message) as raised:
        ledger.store([rank], torch.zeros(1, 2, dtype=dtype))
    assert world_size == 1 or f"rank {last}" in str(raised.value)
    ids: Any = ["ok", 1.5] if rank == 0 else ["ok"]
    with pytest.raises(OtelTrainError, match="str or an int"):
        ledger.fetch(ids)
    with pytest.raises(OtelTrainError, match=r"got float32 \[1, 3\]"):  # wrong on all ranks alike
        ledger.store([rank], torch.zeros(1, 3))
    sparse = torch.zeros(1, 2).to_sparse()
    with pytest.raises(OtelTrainError, match="dense tensor"):
        ledger.store([rank], sparse if rank == last else sparse.to_dense())
    assert len(ledger) == 0
    ledger.store([rank], torch.full((1, 2), float(rank)))
    assert ledger.fetch([last]).states.tolist() == [[last, last]]


def test_unreadable_ids_raise_everywhere(world_size: int, job: Job) -> None:
    """Ids of the user's own that raise on one rank are an error on all."""

    class Unreadable(list[int]):
        def __iter__(self) -> Iterator[int]:
            raise KeyError("gone")

    ledger = StateLedger((2,), capacity=8)
    with pytest.raises(OtelTrainError, match="can't be read: KeyError"):
        ledger.fetch(Unreadable([1]) if job.rank == world_size - 1 else [1])
    assert len(ledger) == 0


def test_different_calls_raise_everywhere(world_size: int, job: Job) -> None:
    """A fetch does not meet a store, nor a ledger one of another shape."""
    ledger = StateLedger((2,), capacity=8)
    other = StateLedger((3,) if job.rank == 0 else (2,), capacity=8)
    if world_size > 1:
        message = r"rank 1 of the ledger makes a store of float32 \[2\], rank 0 a fetch of float32 \[2\]"
        with pytest.raises(OtelTrainError, match=message):
            ledger.fetch(["a"]) if job.rank == 0 else ledger.store(["a"], torch.zeros(1, 2))
        message = r"rank 1 of the ledger makes a fetch of float32 \[2\], rank 0 a fetch of float32 \[3\]"
        with pytest.raises(OtelTrainError, match=message):
            other.fetch(["a"])
    assert not ledger.fetch(["a"]).found.any()


@pytest.mark.parametrize(
    ("dtype", "same_size"),
    [(torch.float32, torch.int32), (torch.bfloat16, torch.int16), (torch.float16, torch.int16)],
)
def test_states_keep_every_bit(dtype: torch.dtype, same_size: torch.dtype, world_size: int, job: Job) -> None:
    """Any bits survive the way, those of NaNs too, and ids may be a tensor."""
    ledger = StateLedger((5, 3), capacity=16, dtype=dtype)
    low, high = torch.iinfo(same_size).min, torch.iinfo(same_size).max
    bits = torch.randint(low, high, (4, 5, 3), dtype=same_size, generator=torch.Generator().manual_seed(job.rank))
    ids = torch.arange(4) + 4 * job.rank
    ledger.store(ids, bits.view(dtype))
    assert ledger.fetch(ids.flip(0)).states.view(same_size).equal(bits.flip(0))
    assert owners_of(keys_of(ids), world_size).tolist() == [owner(int(one), world_size) for one in ids]


def test_fetched_keys_travel_once(world_size: int, job: Job) -> None:
    """A step mostly stores what it has fetched; where one rank does not, all send their keys."""
    ledger, states = StateLedger((2,), capacity=8), torch.zeros(1, 2)
    swap = ledger._exchange.swap
    sent: list[torch.dtype] = []

    def noted(rows: torch.Tensor, *splits: Any) -> torch.Tensor:
        sent.append(rows.dtype)
        return swap(rows, *splits)

    ledger._exchange.swap = noted  # type: ignore[method-assign, assignment]
    ledger.fetch([job.rank])
    sent.clear()
    ledger.store([job.rank], states)
    assert sent == ([torch.uint8] if world_size > 1 else [])
    sent.clear()
    ledger.store(["other" if job.rank == 0 else job.rank], states)
    assert sent == ([torch.int64, torch.uint8] if world_size > 1 else [])


def test_subgroup_has_own_ledger(world_size: int, job: Job) -> None:
    """Ranks of a group are counted within it, and a rank outside of it is refused."""
    group: Any = dist.new_group(list(range(world_size // 2, world_size)))
    if job.rank >= world_size // 2:
        ledger = StateLedger((1,), capacity=4, process_group=group)
        ledger.store([job.rank], torch.full((1, 1), float(job.rank)))
        assert ledger.fetch([world_size - 1]).states.tolist() == [[world_size - 1]]
        assert ledger.state_dict()["world_size"] == world_size - world_size // 2
    else:
        with pytest.raises(OtelTrainError, match="does not contain this rank"):
            StateLedger((1,), capacity=4, process_group=group)
