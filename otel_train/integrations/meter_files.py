"""Each rank's meter in a file of its own, in the folder of a checkpoint that is written by rank 0 alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def write_meter(folder: Path, state: dict[str, Any], rank: int, world_size: int) -> None:
    """Write the state of a rank's meter; the folder need not be there yet.

    Raises:
        OSError: It can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"world_size": world_size, "meter": state}, _path(folder, rank))


def read_meters(folder: Path, rank: int, world_size: int) -> dict[str, Any]:
    """Return what a fit's state has of the meters that a checkpoint has: this rank's, or all of another world size.

    Returns:
        `{"meter": state}`, `{"meters": states}`, or nothing where the checkpoint has none.

    Raises:
        OSError: A file that must be there can't be read.
    """
    first = next((at for at in (0, rank) if _path(folder, at).exists()), None)
    if first is None:
        return {}
    # Nodes may have a disk each, and their own ranks' files only; a larger world before may have left files, too.
    saved = _read(folder, first)["world_size"]
    if saved == world_size:
        return {"meter": _read(folder, rank)["meter"]}
    return {"meters": [_read(folder, at)["meter"] for at in range(saved)]}


def _path(folder: Path, rank: int) -> Path:
    return folder / f"otel_train_meter_{rank}.pt"


def _read(folder: Path, rank: int) -> Any:
    return torch.load(_path(folder, rank), weights_only=True)
