"""Process groups of some of the processes that torchrun started, one after the other."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist


@contextmanager
def gloo_ranks(meeting: Path, rank: int, world_size: int) -> Iterator[None]:
    """Be one of the ranks of a default group as long as the block; they meet in a file. One that raises leaves it."""
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size, timeout=dt.timedelta(seconds=60)
    )
    yield
    dist.destroy_process_group()
