"""Each rank's meter in a file of its own, in the folder of a checkpoint that is written by rank 0 alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)


def write_meter(folder: Path, state: dict[str, Any], rank: int, world_size: int) -> None:
    """Write the state of a rank's meter; the folder need not be there yet. A failure is logged: training goes on."""
    path = _path(folder, rank)
    new = path.with_suffix(".new")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"world_size": world_size, "meter": state}, new)
        new.replace(path)  # a job that is killed leaves a whole file or none
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        logger.warning("telemetry: the meter of rank %d is not saved in %s: %s", rank, folder, error)


def read_meters(folder: Path, rank: int, world_size: int) -> dict[str, Any]:
    """Return what a fit's state has of the meters that a checkpoint has: this rank's, or all of another world size.

    Returns:
        `{"meter": state}` or `{"meters": states}`. Nothing where the checkpoint has none, and where a file can't be
        read, which is logged: the meter begins anew.
    """
    first = next((at for at in (0, rank) if _path(folder, at).exists()), None)
    if first is None:
        return {}
    try:
        # Nodes may have a disk each, and their own ranks' files only; a larger world before may have left files, too.
        saved = _read(folder, first)["world_size"]
        if saved == world_size:
            return {"meter": _read(folder, rank)["meter"]}
        return {"meters": [_read(folder, at)["meter"] for at in range(saved)]}
    except Exception as error:  # noqa: BLE001  # a damaged file raises all kinds
        logger.warning("telemetry: rank %d's meter begins anew, its state in %s is unread: %r", rank, folder, error)
        return {}


def _path(folder: Path, rank: int) -> Path:
    return folder / f"otel_train_meter_{rank}.pt"


def _read(folder: Path, rank: int) -> Any:
    return torch.load(_path(folder, rank), weights_only=True)
