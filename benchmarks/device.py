"""The device that the GPU's sections run on; "cpu" rehearses them where there is no GPU."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist

GPU = "cuda"


def device_name(device: str) -> str:
    """Return the card's name, or that there is none."""
    return torch.cuda.get_device_name() if device == GPU else "no GPU: the CPU, which shows only that it runs"


def synchronize(device: str) -> None:
    """Wait until the GPU has done what it was given."""
    if device == GPU:
        torch.cuda.synchronize()


@contextlib.contextmanager
def waiting_forbidden(device: str, *, forbidden: bool = True) -> Iterator[None]:
    """Have whatever waits for the GPU raise during the block."""
    if device == GPU and forbidden:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == GPU:
            torch.cuda.set_sync_debug_mode("default")


@contextlib.contextmanager
def group_of_one(folder: Path, device: str) -> Iterator[None]:
    """Make a group of this one rank, as a job on GPUs has it: NCCL with gloo beside it."""
    store = f"file://{folder}/store"
    if device == GPU:
        own = torch.device(GPU, torch.cuda.current_device())
        dist.init_process_group("cpu:gloo,cuda:nccl", init_method=store, rank=0, world_size=1, device_id=own)
    else:
        dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def our_warnings() -> Iterator[list[str]]:
    """Give the list of what otel_train warns of during the block: its failures are caught, and said."""
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("otel_train").addHandler(handler)
    try:
        yield warnings
    finally:
        logging.getLogger("otel_train").removeHandler(handler)
