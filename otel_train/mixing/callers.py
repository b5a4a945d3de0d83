"""Tell from the stack what calls: a DataLoader that makes a batch, and what of other packages stands around it.

A DataLoader without workers makes its batches in the training process, where nothing else tells its reading of a row
from the training loop's.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from otel_train.exceptions import ConfigurationError

_FETCH = "torch.utils.data._utils.fetch"
_ACCELERATE = "accelerate.data_loader"
_STATES = "torchdata.stateful_dataloader"


def _frames() -> Iterator[FrameType]:
    """Yield the frames of the callers, the nearest first."""
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def makes_batch() -> bool:
    """Tell whether a DataLoader of this thread is making a batch just now: its reading is no training loop's."""
    frame = inspect.currentframe()  # without `_frames`: default_collate asks for each value of each row
    while frame is not None:
        if frame.f_globals.get("__name__") == _FETCH:
            return True
        frame = frame.f_back
    return False


def restores_loader() -> bool:
    """Tell whether torchdata's StatefulDataLoader saves or restores what it holds just now."""
    return any(_module(frame).startswith(_STATES) for frame in _frames())


@dataclass(frozen=True, slots=True)
class Slices:
    """The part of each round of rows that accelerate's wrapper of a dataset keeps for a process."""

    rows: int
    """Rows of a process in a round."""
    process: int
    processes: int
    completes: bool
    """Whether the last round is completed."""


@dataclass(frozen=True, slots=True)
class Loader:
    """A DataLoader that begins to read the dataset."""

    collate: Any
    """The function that makes a batch of rows."""
    slices: Slices | None
    """How accelerate divides the rows; None where it does not."""


def calling_loader() -> Loader | None:
    """Return the DataLoader that begins to read the dataset, in this process; None where nothing collates its rows.

    Raises:
        ConfigurationError: accelerate would send this process' rows to all processes.
    """
    fetcher = slices = None
    for frame in _frames():
        module = _module(frame)
        if module == _FETCH and fetcher is None:
            fetcher = frame.f_locals["self"]
        elif module == _ACCELERATE:
            owner = frame.f_locals.get("self")
            if type(owner).__name__ == "IterableDatasetShard" and slices is None:
                slices = _slices(owner)
            check_not_dispatched(frame)
    return None if fetcher is None else Loader(fetcher.collate_fn, slices)


def check_collate(collate: object) -> None:
    """Check that a DataLoader's function to make a batch gets the rows with their picks.

    Raises:
        ConfigurationError: transformers' Trainer takes the picks away before.
    """
    if type(collate).__name__ == "RemoveColumnsCollator":
        columns = getattr(collate, "signature_columns", ())
        if not {"pick", "length"} <= set(columns):
            raise ConfigurationError(
                "transformers' Trainer removes the picks from the rows, so none would be counted: set "
                "TrainingArguments(remove_unused_columns=False) and data_collator=MixedCollate(your collator)"
            )


def check_not_dispatched(frame: FrameType | None = None) -> None:
    """Check that accelerate's dispatcher is not on the stack, or in one frame of it.

    Raises:
        ConfigurationError: It is.
    """
    for caller in _frames() if frame is None else (frame,):
        if _module(caller) == _ACCELERATE and type(caller.f_locals.get("self")).__name__ == "DataLoaderDispatcher":
            raise ConfigurationError(
                "accelerate would read this dataset on process 0 and send its rows to all processes, but each rank "
                "has streams of its own to read: set dispatch_batches=False "
                "(Accelerator(dataloader_config=DataLoaderConfiguration(dispatch_batches=False)); transformers: "
                "TrainingArguments(accelerator_config={'dispatch_batches': False}))"
            )


def _slices(shard: Any) -> Slices:
    """Return how accelerate's IterableDatasetShard divides the rows."""
    rows = shard.batch_size // shard.num_processes if shard.split_batches else shard.batch_size
    return Slices(rows, shard.process_index, shard.num_processes, not shard.drop_last)
