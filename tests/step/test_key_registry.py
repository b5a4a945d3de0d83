"""Late keys get one number over the ranks, by whatever store the job has."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from otel_train.catalogue import Metric, Reduction
from otel_train.ring import MOST_LATE_KEYS
from otel_train.step import job_store
from otel_train.step.key_registry import KeyRegistry
from otel_train.step.late_values import LateKey
from otel_train.step.rank_group import RankGroup


def keys(*names: str) -> list[LateKey]:
    """Return late keys."""
    return [LateKey(Metric(name)) for name in names]


@pytest.fixture(params=["tcp", "file", "hash"])
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RankGroup]:
    """Return a group of one rank that has a process group, and so a store, which is waited for on a busy machine."""
    stores: Any = vars(dist)
    make = {
        "tcp": lambda: stores["TCPStore"]("127.0.0.1", 0, is_master=True),
        "file": lambda: stores["FileStore"](str(tmp_path / "store"), 1),
        "hash": stores["HashStore"],
    }
    dist.init_process_group("gloo", store=make[request.param](), rank=0, world_size=1, timeout=dt.timedelta(seconds=30))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(job_store, "PATIENCE", 60.0)
            yield RankGroup.of(None, own=False)
    finally:
        dist.destroy_process_group()


def test_ranks_number_keys_alike(group: RankGroup) -> None:
    """Ranks that claim some of the same keys, in other orders and at once, have one number for each key."""
    names = [[f"key{(rank * 7 + index) % 40}" for index in range(25)] for rank in range(4)]
    registries = [KeyRegistry(group) for _ in names]
    with ThreadPoolExecutor(4) as ranks:
        list(ranks.map(lambda registry, own: registry.claim(keys(*own)), registries, names))
    numbers: dict[str, set[int | None]] = {}
    for registry, own in zip(registries, names, strict=True):
        for key in keys(*own):
            numbers.setdefault(key.metric.name, set()).add(registry.number(key))
    assert all(len(found) == 1 and None not in found for found in numbers.values())
    assert len({number for found in numbers.values() for number in found}) == len(numbers)
    reader = KeyRegistry(group)
    assert {reader.key(number) for number in range(len(numbers))} == {*keys(*numbers)}


@pytest.mark.parametrize("other", [Metric("a/b", Reduction.NORM), Metric("a.b")])
def test_colliding_key_is_refused(group: RankGroup, other: Metric, caplog: pytest.LogCaptureFixture) -> None:
    """A key that can't stand beside one that another rank brought before has no number, on all ranks alike."""
    first, second, third = LateKey(Metric("a/b")), LateKey(other), LateKey(Metric("c"))
    one, two = KeyRegistry(group), KeyRegistry(group)
    one.claim([first])
    two.claim([second, third])
    one.claim([third])
    assert [two.number(key) for key in (first, second, third)] == [0, None, 2]
    assert (one.number(third), one.key(1)) == (2, None)
    assert repr(other.name) in caplog.text


def test_numbers_have_a_bound() -> None:
    """A key too many has no number, and those before it keep theirs."""
    registry = KeyRegistry(RankGroup.alone())
    many = keys(*(f"key{index}" for index in range(MOST_LATE_KEYS + 1)))
    registry.claim(many)
    assert [registry.number(key) for key in many] == [*range(MOST_LATE_KEYS), None]


def test_unclaimed_number_leaves_store_free(group: RankGroup) -> None:
    """Nobody waits in the store for a key that no rank has set: the process could make no group meanwhile."""
    assert KeyRegistry(group).key(0) is None
    assert not [thread for thread in threading.enumerate() if thread.name == "otel_train store"]


def test_numbers_outlive_group(group: RankGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a session reads while it closes has the name of its group, which is gone by then."""
    (key,) = keys("a")
    KeyRegistry(group).claim([key])
    reader = KeyRegistry(group)
    names: dict[Any, Any] = vars(dist.distributed_c10d)["_world"].pg_names
    monkeypatch.delitem(names, group.handle)
    assert reader.key(0) == key


def test_silent_store_costs_once(
    group: RankGroup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that does not answer is waited for once, with one warning, and its late answer counts."""
    answers = threading.Event()

    class Silent:
        def compare_set(self, *_: Any) -> bytes:
            answers.wait(60)
            return keys("a")[0].encode().encode()

    monkeypatch.setattr(job_store, "PATIENCE", 0.2)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", Silent)
    registry = KeyRegistry(group)
    with caplog.at_level(logging.WARNING):
        registry.claim(keys("a"))
        registry.claim(keys("b"))
    assert [thread.name for thread in threading.enumerate()].count("otel_train store") == 1
    assert [record.getMessage().count("does not answer") for record in caplog.records] == [1]
    assert registry.number(keys("a")[0]) is None
    answers.set()
    deadline = time.monotonic() + 30
    while registry.number(keys("a")[0]) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert registry.number(keys("a")[0]) == 0
