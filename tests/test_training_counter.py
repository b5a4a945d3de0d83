"""Meters that count in other processes than the training one: in real workers and children of each kind."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset, IterableDataset

from otel_train.ledger import LedgerMeter
from otel_train.mixing import MixingMeter, SourceMeter, pack_tag
from otel_train.training_counter import MOST_CALLS

METHODS = ["fork", "spawn", "forkserver"]


def a_meter() -> MixingMeter:
    """Return a meter with one open slot."""
    meter = MixingMeter(1, ["a"], {"a": 1})
    meter.open(0, "a")
    return meter


def log_to(folder: Path, _: int = 0) -> None:
    """Have the warnings of this process written to a file of its own."""
    handler = logging.FileHandler(folder / str(os.getpid()))
    handler.setLevel(logging.WARNING)
    logging.getLogger("otel_train").handlers = [handler]


def warnings_in(folder: Path) -> list[list[str]]:
    """Return the warnings of each process that has any."""
    return [lines for path in folder.iterdir() if (lines := path.read_text().splitlines())]


class Rows(Dataset[int]):
    """Rows that are picked where they are made."""

    def __init__(self, meter: Any) -> None:
        self.meter = meter

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> int:
        if isinstance(self.meter, MixingMeter):
            self.meter.log_pick(0, "stream", tokens=5)
            self.meter.restart(0)
        elif isinstance(self.meter, SourceMeter):
            self.meter.count_tags([pack_tag("a")])
        else:
            self.meter.store(f"key-{index}")
        return index


class RowsInTurn(IterableDataset[int]):
    """Rows of a meter that the worker itself makes."""

    def __iter__(self) -> Iterator[int]:
        meter = a_meter()
        for index in range(4):
            meter.pick(0)
            yield index


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_workers_warn_once_each(method: str, persistent: bool, tmp_path: Path) -> None:
    """Workers that are started in any way warn once each, say what to do, and leave the meter of the loop alone."""
    meter = a_meter()
    loader = DataLoader(
        Rows(meter),
        num_workers=2,
        multiprocessing_context=method,
        persistent_workers=persistent,
        worker_init_fn=partial(log_to, tmp_path),
    )
    for _ in range(2):
        assert len(list(loader)) == 12
    warnings = warnings_in(tmp_path)
    assert [len(lines) for lines in warnings] == [1] * (2 if persistent else 4)
    assert "MixingMeter.pick was called in a DataLoader's worker process" in warnings[0][0]
    assert "otel_train.SourceMeter" in warnings[0][0]
    meter.pick(0)
    values = meter.drain_step_metrics(1)
    assert (values["stream_mixing/picks"], values["stream_mixing/restarts"]) == (1, 0)


@pytest.mark.parametrize(
    ("rows", "called"),
    [
        (Rows(SourceMeter({"a": 1})), "MixingMeter.pick_batch"),
        (Rows(LedgerMeter(capacity=4)), "LedgerMeter.store"),
        (RowsInTurn(), "MixingMeter.pick"),
    ],
)
def test_other_counts_warn_too(rows: Any, called: str, tmp_path: Path) -> None:
    """A batch's tags, a cache's entries and a meter that a worker has made itself are counted for nobody there."""
    list(DataLoader(rows, num_workers=1, worker_init_fn=partial(log_to, tmp_path)))
    [[warning]] = warnings_in(tmp_path)
    assert warning.startswith(f"{called} was called in a DataLoader's worker process")


def pick_in_child(folder: Path, meter: MixingMeter, calls: int, steps: int) -> None:
    """Pick in a child of the training process, in so many steps, and note what the meter has counted at last."""
    log_to(folder)
    meter.end_step(1) if steps else None
    for _ in range(calls):
        meter.pick(0)
    (folder / "picks").write_text(f"{meter.drain_step_metrics()['stream_mixing/picks']:.0f}\n")


@pytest.mark.parametrize(("calls", "steps", "warned"), [(10, 0, 0), (MOST_CALLS, 0, 1), (MOST_CALLS, 1, 0)])
@pytest.mark.parametrize("method", METHODS)
def test_child_may_be_rank(method: str, calls: int, steps: int, warned: int, tmp_path: Path) -> None:
    """A child that no loader has started counts; it warns where it counts on and on and no step ends."""
    meter = a_meter()
    context: Any = multiprocessing.get_context(method)
    target = context.Process(target=pick_in_child, args=(tmp_path, meter, calls, steps))
    target.start()
    target.join(60)
    assert target.exitcode == 0
    assert (tmp_path / "picks").read_text() == f"{calls}\n"
    (tmp_path / "picks").unlink()
    assert [len(lines) for lines in warnings_in(tmp_path)] == [1] * warned
    assert meter.drain_step_metrics(1)["stream_mixing/picks"] == 0


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda meter: pickle.loads(pickle.dumps(meter))])
def test_copies_here_are_unmarked(duplicate: Any) -> None:
    """A copy in the same process counts as the original does, with nothing in between."""
    made = duplicate(a_meter())
    assert not any(isinstance(member, partial) for member in vars(made).values())
    made.pick(0)
    assert made.drain_step_metrics(1)["stream_mixing/picks"] == 1
