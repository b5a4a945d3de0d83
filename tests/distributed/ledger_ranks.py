"""Run by torchrun on four ranks: gloo groups of 1 to 4 of them make every case's calls, and say what went wrong."""

import json
import os
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from otel_train.exceptions import OtelTrainError
from otel_train.ledger import StateLedger, stable_hash
from otel_train.ledger.hashing import keys_of, owners_of
from tests.support.ledger_model import Model
from tests.support.meeting import gloo_ranks

WORLD_SIZES = (1, 2, 3, 4)
NAMES: list[str | int] = [*(f"doc-{number}" for number in range(10)), *range(10)]


def owner(stream_id: str | int, world_size: int) -> int:
    """Return the rank that owns a stream."""
    return stable_hash(stream_id) % 2**64 % world_size


def compare(ids: list[str | int], rank: int, world_size: int, capacity: int, max_idle_steps: int | None = None) -> None:
    """Make random calls, of any number of ids from any rank, and compare all with one model for each owner."""
    rng = random.Random(0)
    ledger = StateLedger((2,), capacity=capacity, dtype=torch.int64, max_idle_steps=max_idle_steps)
    models = [Model(capacity, None, max_idle_steps) for _ in range(world_size)]
    for number in range(40):
        # Every rank draws what every rank asks for: an empty list and duplicates happen.
        asked = [rng.choices(ids, k=rng.choice((0, 0, 1, 4, 9))) for _ in range(world_size)]
        fetched = ledger.fetch(asked[rank])
        expected = [[None] * len(wanted) for wanted in asked]
        for at, model in enumerate(models):
            places = [(r, p) for r, wanted in enumerate(asked) for p in range(len(wanted))]
            places = [(r, p) for r, p in places if owner(asked[r][p], world_size) == at]
            for (r, p), state in zip(places, model.fetch([asked[r][p] for r, p in places]), strict=True):
                expected[r][p] = state
        assert fetched.found.tolist() == [state is not None for state in expected[rank]]
        assert fetched.states.tolist() == [state or [0, 0] for state in expected[rank]]
        # Mostly what was fetched, by all ranks or by some of them only.
        written = [wanted if rng.random() < 0.8 else rng.choices(ids, k=rng.choice((0, 1, 4))) for wanted in asked]
        pairs = [(key, [r, number * 10 + p]) for r, keys in enumerate(written) for p, key in enumerate(keys)]
        ledger.store(written[rank], torch.tensor([s for _, s in pairs if s[0] == rank], dtype=torch.int64).view(-1, 2))
        for at, model in enumerate(models):
            model.store([(key, state) for key, state in pairs if owner(key, world_size) == at])
        assert ledger.drain_measurements() == [model.drain() for model in models][rank]
        held = ledger.state_dict()
        assert held["keys"].tolist() == [stable_hash(key) for key in models[rank].entries]
        assert held["states"].tolist() == list(models[rank].entries.values())


def equals_one_dict(rank: int, world_size: int) -> None:
    """With room for all, what was stored last is what comes back."""
    compare(NAMES, rank, world_size, capacity=len(NAMES))


def evicts_as_the_model(rank: int, world_size: int) -> None:
    """With little room, each owner evicts, counts and orders as its model."""
    compare(NAMES, rank, world_size, capacity=3, max_idle_steps=2)


def one_owner_takes_all(rank: int, world_size: int) -> None:
    """A rank may own every key, and the others none."""
    ids = [name for name in NAMES if owner(name, world_size) == world_size - 1]
    compare(ids, rank, world_size, capacity=2)


class Unreadable(list[int]):
    """Ids of the user's own that can't be had."""

    def __iter__(self) -> Iterator[int]:
        """Raise what no ledger expects."""
        raise KeyError("gone")


def wrong_states_raise_everywhere(rank: int, world_size: int) -> None:
    """What is wrong on one rank is an error on all, naming both forms, and the ledger goes on."""
    ledger, last = StateLedger((2,), capacity=8), world_size - 1
    dtype = torch.float64 if rank == last else torch.float32
    message = raised(lambda: ledger.store([rank], torch.zeros(1, 2, dtype=dtype)))
    assert "float32 [1, 2] on cpu, got float64 [1, 2] on cpu" in message
    assert world_size == 1 or f"rank {last}" in message
    ids: Any = ["ok", 1.5] if rank == 0 else ["ok"]
    message = raised(lambda: ledger.fetch(ids))
    assert "str or an int" in message
    assert "got float32 [1, 3]" in raised(lambda: ledger.store([rank], torch.zeros(1, 3)))  # wrong on all ranks alike
    sparse = torch.zeros(1, 2).to_sparse()
    assert "dense tensor" in raised(lambda: ledger.store([rank], sparse if rank == last else sparse.to_dense()))
    assert "can't be read: KeyError" in raised(lambda: ledger.fetch(Unreadable([1]) if rank == last else [1]))
    assert len(ledger) == 0
    ledger.store([rank], torch.full((1, 2), float(rank)))
    assert ledger.fetch([last]).states.tolist() == [[last, last]]


def different_calls_raise_everywhere(rank: int, world_size: int) -> None:
    """A fetch does not meet a store, nor a ledger one of another shape."""
    ledger = StateLedger((2,), capacity=8)
    other = StateLedger((3,) if rank == 0 else (2,), capacity=8)
    if world_size > 1:
        states = torch.zeros(1, 2)
        message = raised(lambda: ledger.fetch(["a"]) if rank == 0 else ledger.store(["a"], states))
        assert "rank 1 of the ledger makes a store of float32 [2], rank 0 a fetch of float32 [2]" in message
        assert "rank 1 of the ledger makes a fetch of float32 [2], rank 0 a fetch of float32 [3]" in raised(
            lambda: other.fetch(["a"])
        )
    assert not ledger.fetch(["a"]).found.any()


def every_dtype_comes_back_bit_for_bit(rank: int, world_size: int) -> None:
    """Any bits survive the way, those of NaNs too, and ids may be a tensor."""
    for dtype, same_size in (
        (torch.float32, torch.int32),
        (torch.bfloat16, torch.int16),
        (torch.float16, torch.int16),
    ):
        ledger = StateLedger((5, 3), capacity=16, dtype=dtype)
        low, high = torch.iinfo(same_size).min, torch.iinfo(same_size).max
        bits = torch.randint(low, high, (4, 5, 3), dtype=same_size, generator=torch.Generator().manual_seed(rank))
        ids = torch.arange(4) + 4 * rank
        ledger.store(ids, bits.view(dtype))
        assert ledger.fetch(ids.flip(0)).states.view(same_size).equal(bits.flip(0))
        assert owners_of(keys_of(ids), world_size).tolist() == [owner(int(one), world_size) for one in ids]


def keys_that_were_fetched_do_not_travel_again(rank: int, world_size: int) -> None:
    """A step mostly stores what it has fetched; where one rank does not, all send their keys."""
    ledger, states = StateLedger((2,), capacity=8), torch.zeros(1, 2)
    swap = ledger._exchange.swap
    sent: list[torch.dtype] = []

    def noted(rows: torch.Tensor, *splits: Any) -> torch.Tensor:
        sent.append(rows.dtype)
        return swap(rows, *splits)

    ledger._exchange.swap = noted  # type: ignore[method-assign, assignment]
    ledger.fetch([rank])
    sent.clear()
    ledger.store([rank], states)
    assert sent == ([torch.uint8] if world_size > 1 else [torch.int64, torch.uint8])
    sent.clear()
    ledger.store(["other" if rank == 0 else rank], states)
    assert sent == [torch.int64, torch.uint8]


def one_entry_a_rank(rank: int, world_size: int) -> None:
    """The smallest capacity: nearly every store evicts, and a batch is larger than a shard."""
    compare(NAMES, rank, world_size, capacity=1)


def a_part_of_the_ranks_has_its_own_ledger(rank: int, world_size: int) -> None:
    """Ranks of a group are counted within it."""
    group: Any = dist.new_group(list(range(world_size // 2, world_size)))
    if rank >= world_size // 2:
        ledger = StateLedger((1,), capacity=4, process_group=group)
        ledger.store([rank], torch.full((1, 1), float(rank)))
        assert ledger.fetch([world_size - 1]).states.tolist() == [[world_size - 1]]
        assert ledger.state_dict()["world_size"] == world_size - world_size // 2
    else:
        assert "does not contain this rank" in raised(lambda: StateLedger((1,), capacity=4, process_group=group))


def raised(call: Callable[[], Any]) -> str:
    """Return the message of the error that must come."""
    try:
        call()
    except OtelTrainError as error:
        return str(error)
    raise AssertionError("nothing was raised")


CASES = (
    equals_one_dict,
    evicts_as_the_model,
    one_owner_takes_all,
    wrong_states_raise_everywhere,
    different_calls_raise_everywhere,
    every_dtype_comes_back_bit_for_bit,
    keys_that_were_fetched_do_not_travel_again,
    one_entry_a_rank,
    a_part_of_the_ranks_has_its_own_ledger,
)


def main(directory: Path) -> None:
    """Run every case with 1 to 4 ranks and write what went wrong on this rank; a rank out of step ends the run."""
    me = int(os.environ["RANK"])
    for world_size in WORLD_SIZES:
        if me >= world_size:
            continue
        with gloo_ranks(directory / f"meeting{world_size}", me, world_size):
            outcome: dict[str, str] = {}
            try:
                for case in CASES:
                    case(me, world_size)
                    outcome[case.__name__] = ""
            except Exception:  # noqa: BLE001  # the test prints it
                outcome[case.__name__] = traceback.format_exc()
            (directory / f"of{world_size}-rank{me}.json").write_text(json.dumps(outcome))
            if any(outcome.values()):
                sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
