"""Repeated samples in a rank's window and over the ranks, against the samples themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otel_train.catalogue import SAMPLES, Layout, healthy_range, rows
from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.mixing import SourceMeter, pack_tag
from otel_train.mixing.repeats import Repeats
from otel_train.mixing.tags import REPEAT_SHIFT
from otel_train.splitmix import mix_tensor
from tests.support.on_ranks import Job

LAYOUT = Layout(SAMPLES)
HEALTHY = healthy_range(rows.REPEATS.wandb_key)


def hashes(samples: Any) -> torch.Tensor:
    return mix_tensor(torch.as_tensor(samples, dtype=torch.int64) + 1) & (2**63 - 1)


def tags_of(passes: Any) -> torch.Tensor:
    return torch.as_tensor(passes, dtype=torch.int64) << REPEAT_SHIFT | pack_tag("a", tokens=7)


def share(*ranks: Repeats) -> float:
    """Return the cluster's value."""
    sums = [math.fsum(column) for column in zip(*(rank.drain() for rank in ranks), strict=True)]
    return LAYOUT.by_key(sums, [])["stream_mixing/repeats"]


def exact_share(batches: list[list[Any]]) -> float:
    """Return the share of the rows whose sample another row has before it."""
    samples = [sample for batch in batches for sample in batch]
    return 1 - len(set(samples)) / len(samples) if samples else 0.0


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), max_size=12), max_size=30),
    st.integers(1, 80),
)
def test_own_repeats_are_exact(batches: list[list[tuple[int, int]]], window: int) -> None:
    """Of any batches the window holds the newest with so many rows, or eight; a sample of a new pass is another."""
    repeats = Repeats(window)
    for batch in batches:
        repeats.add(
            hashes([sample for sample, _ in batch]),
            tags_of([number for _, number in batch]),
        )
    held = [batch for batch in batches if batch]
    while len(held) > 8 and sum(map(len, held)) > window:
        held.pop(0)
    assert share(repeats) == pytest.approx(exact_share(held), abs=1e-12)
    assert repeats.drain()[0] == sum(map(len, held))


@given(st.integers(0, 40), st.integers(1, 700), st.integers(0, 39))
def test_resume_is_never_stopped(seed: int, spread: int, stop: int) -> None:
    """A window that was saved and loaded goes on as one that was not, whether all keys are looked at or some."""
    chosen = torch.randint(0, spread, (40, 32), generator=torch.Generator().manual_seed(seed))
    whole, resumed = Repeats(600), Repeats(600)
    for number, batch in enumerate(chosen):
        if number == stop:
            state = resumed.state_dict()
            resumed = Repeats(600)
            resumed.load_state_dict(state)
        whole.add(hashes(batch))
        resumed.add(hashes(batch))
    assert resumed.drain() == whole.drain()


@pytest.mark.parametrize("spread", [500, 2000, 100_000])
def test_sampled_share_is_near(spread: int) -> None:
    """A window with thousands of keys, of which few are looked at: within four standard deviations of the truth."""
    chosen = torch.randint(0, spread, (40, 100), generator=torch.Generator().manual_seed(spread))
    repeats = Repeats(4000)
    for batch in chosen:
        repeats.add(hashes(batch))
    exact = exact_share(chosen.tolist())
    assert share(repeats) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 128))


def samples_of(rank: int, worker: int, number: int, rows_each: int = 16) -> list[int]:
    """Return the samples of a batch of a worker of a rank, like no other's."""
    begin = ((rank * 64 + worker) * 10_000 + number) * rows_each
    return list(range(begin, begin + rows_each))


Scheme = Callable[[int, int], list[int]]
FAULTS: dict[str, Scheme] = {
    "workers read the same batches": lambda rank, number: samples_of(rank, 0, number // 2),
    "ranks read the same shard": lambda _, number: samples_of(0, 0, number),
    "ranks in pairs": lambda rank, number: samples_of(rank // 2, 0, number),
    "one rank is three batches behind": lambda rank, number: samples_of(0, 0, number + 3 * rank),
    "few samples drawn again": lambda rank, number: torch.randint(
        0, 500, (16,), generator=torch.Generator().manual_seed(rank * 1000 + number)
    ).tolist(),
}
RIGHT: dict[str, Scheme] = {
    "each worker its own": lambda rank, number: samples_of(rank, number % 2, number),
    "drawn from millions": lambda rank, number: torch.randint(
        0, 20_000_000, (16,), generator=torch.Generator().manual_seed(rank * 1000 + number)
    ).tolist(),
}


def judged(scheme: Scheme, world_size: int) -> float:
    """Return the mean of the cluster's value over 80 steps, as the healthy range judges it."""
    ranks, values = [Repeats() for _ in range(world_size)], []
    for number in range(80):
        for rank, repeats in enumerate(ranks):
            repeats.add(hashes(scheme(rank, number)))
        if number % 8 == 7:
            values.append(share(*ranks))
    return math.fsum(values) / len(values)


@pytest.mark.parametrize("world_size", [2, 8, 64])
@pytest.mark.parametrize("scheme", FAULTS.values(), ids=list(FAULTS))
def test_repeating_schemes_are_flagged(scheme: Scheme, world_size: int) -> None:
    """Each way in which loaders were seen to read data twice is out of the range."""
    assert judged(scheme, world_size) not in HEALTHY


@pytest.mark.parametrize("world_size", [2, 8, 64])
@pytest.mark.parametrize("scheme", RIGHT.values(), ids=list(RIGHT))
def test_right_schemes_are_healthy(scheme: Scheme, world_size: int) -> None:
    """Ranks and workers with samples of their own, or drawn from many, are in the range."""
    assert judged(scheme, world_size) in HEALTHY


@pytest.mark.parametrize("world_size", [2, 8])
def test_long_passes_are_healthy(world_size: int) -> None:
    """Three shuffled passes, dealt to the ranks, without their number: at a border few samples are repeated."""
    ranks, values = [Repeats(128) for _ in range(world_size)], []
    for number in range(3):
        order = torch.randperm(world_size * 16 * 40, generator=torch.Generator().manual_seed(number))
        for rows_of_step in order.view(40, world_size, 16):
            for repeats, batch in zip(ranks, rows_of_step, strict=True):
                repeats.add(hashes(batch))
            values.append(share(*ranks))
    assert math.fsum(values) / len(values) in HEALTHY
    assert max(values) > 0


@pytest.mark.parametrize("world_size", [1, 2])
def test_new_pass_is_no_repeat(world_size: int) -> None:
    """A small source that all ranks go through again and again repeats nothing where the pass is given."""
    ranks = [Repeats() for _ in range(world_size)]
    for number in range(1, 11):
        for rank, repeats in enumerate(ranks):
            batch = torch.arange(rank, 40, world_size)
            repeats.add(hashes(batch), tags_of([number % 256] * len(batch)))
    assert share(*ranks) == 0


def test_large_batches_are_compared() -> None:
    """Two workers whose batches are as large as the window: eight batches are held whatever their size."""
    repeats = Repeats(64)
    for number in range(20):
        repeats.add(hashes(range(number // 2 * 64, number // 2 * 64 + 64)))
    assert share(repeats) == 0.5


def test_memory_is_bounded() -> None:
    """A hundred thousand rows of a window of as many leave few keys to save."""
    repeats = Repeats(100_000)
    for number in range(100):
        repeats.add(hashes(range(number * 1000, number * 1000 + 1000)))
    batches = repeats.state_dict()["batches"]
    assert sum(rows_of for rows_of, _ in batches) == 100_000
    assert 64 <= sum(len(keys) for _, keys in batches) <= 256


@pytest.mark.parametrize("state", [None, {}, {"shift": -65, "batches": []}, {"shift": 0, "batches": [(1, ["x"])]}])
def test_wrong_state_changes_nothing(state: Any) -> None:
    """A state of something else raises, and the window stays."""
    repeats = Repeats()
    repeats.add(hashes([1, 1]))
    with pytest.raises(StateMismatchError):
        repeats.load_state_dict(state)
    assert share(repeats) == 0.5


@pytest.mark.parametrize("window", [0, -1, 1.5, True, "8"])
def test_wrong_window_raises(window: Any) -> None:
    """The message names the argument."""
    with pytest.raises(ConfigurationError, match=r"^window must be a positive whole number"):
        Repeats(window)


@pytest.mark.ranks(2)
def test_ranks_reduce_repeats(job: Job) -> None:
    """Two real ranks: nothing in common, then the same samples, then one more of them within a rank."""
    meter, values = SourceMeter({"a": 1}, samples=True), []

    def train(telemetry: Any, step: int, samples: list[int]) -> None:
        words = torch.tensor([pack_tag("a")] * len(samples))
        meter.count({"otel_train": words, "otel_train_sample": hashes(samples)})
        values.append(telemetry.step(step)["stream_mixing/repeats"])

    with job.session(sources=[meter], blocking=True) as telemetry:
        train(telemetry, 1, [job.rank])
        train(telemetry, 2, [7, 8, 9, 1 - job.rank])
        train(telemetry, 3, [7, 7])
    assert values == pytest.approx([0.0, 0.5, 1 - 5 / 14])


@given(st.lists(st.tuples(st.integers(-1, 2**63 - 1), st.integers(0, 255)), max_size=400))
def test_few_rows_count_as_many(pairs: list[tuple[int, int]]) -> None:
    """A batch gives the same keys whether Python looks through it or torch, rows without a key left out."""
    keys = torch.tensor([key for key, _ in pairs], dtype=torch.int64)
    tags, ways = tags_of([number for _, number in pairs]), []
    for few in (0, 1000):
        repeats = Repeats()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("otel_train.mixing.repeats.FEW", few)
            for _ in range(2):
                repeats.add(keys, tags)
                repeats.add(keys)
        ways.append(repeats.state_dict())
    assert ways[0] == ways[1]
    assert sum(rows_of for rows_of, _ in ways[0]["batches"]) == 4 * sum(key >= 0 for key, _ in pairs)


@pytest.mark.parametrize("number", [1, 2, 255])
def test_keys_of_passes_differ(number: int) -> None:
    """A rank in one pass and a rank in another have nothing in common, in the sketch neither."""
    one, other = Repeats(), Repeats()
    one.add(hashes(range(200)), tags_of([0] * 200))
    other.add(hashes(range(200)), tags_of([number] * 200))
    assert share(one, other) == 0
