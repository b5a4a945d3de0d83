"""Save the reference job and go on from where it was saved, with any number of ranks."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.ledger import StateLedger
from otel_train.mixing import StreamMixingDataset
from otel_train.step import Telemetry

logger = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The objects whose state a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    dataset: StreamMixingDataset
    ledger: StateLedger
    telemetry: Telemetry


class Checkpoints:
    """The checkpoints in one folder, each of one step, written by all ranks through torch.distributed.checkpoint.

    Model and optimizer are the same on each rank and are saved once; dataset and ledger are each rank's own and saved
    under its number, so that a job of another world size can read all of them. A checkpoint gets its name when it is
    whole: the partial one of a killed job is never read.

    Args:
        folder: A folder that all ranks see.
        keep: Number of the newest ones that are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep

    def steps(self) -> list[int]:
        """Return the steps that were saved, oldest first."""
        matches = (_NAME.fullmatch(path.name) for path in self.folder.glob("step-*"))
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, parts: Parts) -> None:
        """Save all parts after a step; a collective that waits."""
        rank, world_size = _rank_and_world()
        whole = self._path(step)
        partial = whole.with_suffix(".partial")
        if rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        _barrier()
        model, optimizer = get_state_dict(parts.model, parts.optimizer)
        state = {
            "model": model,
            "optimizer": optimizer,
            "telemetry": parts.telemetry.state_dict(),
            "job": {"step": step, "world_size": world_size},
            f"rank{rank}": {
                "dataset": json.dumps(parts.dataset.state_dict()),
                **_packed(parts.ledger.state_dict()),
            },
        }
        save(state, checkpoint_id=partial, no_dist=not dist.is_initialized())
        if rank == 0:
            shutil.rmtree(whole, ignore_errors=True)
            partial.rename(whole)
            for old in self.steps()[: -self._keep]:
                shutil.rmtree(self._path(old))
        _barrier()

    def load(self, parts: Parts) -> int:
        """Go on from the newest checkpoint; a collective that waits.

        Learning rates stay those that the optimizer was made with: what is configured now is used.

        Returns:
            The step that was saved; 0 where nothing was.

        Raises:
            StateMismatchError: The checkpoint is not one of this job.
        """
        rank, world_size = _rank_and_world()
        newest = torch.tensor(max(self.steps(), default=0))
        if dist.is_initialized():
            dist.broadcast(newest, 0)  # a shared file system may show different folders to them
        step = int(newest)
        if step == 0:
            return 0
        path = self._path(step)
        model, optimizer = get_state_dict(parts.model, parts.optimizer)
        head: dict[str, Any] = {
            "model": model,
            "optimizer": optimizer,
            "telemetry": {"run_id": ""},
            "job": {"world_size": 0},
        }
        _read(head, path)
        rates = [group["lr"] for group in parts.optimizer.param_groups]
        set_state_dict(parts.model, parts.optimizer, model_state_dict=head["model"], optim_state_dict=head["optimizer"])
        for group, rate in zip(parts.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        parts.telemetry.load_state_dict(head["telemetry"])
        saved = int(head["job"]["world_size"])
        ranks = [rank] if saved == world_size else range(saved)
        states = [_read_rank(path, other) for other in ranks]
        problem = ""
        try:
            parts.dataset.load_state_dict([json.loads(state["dataset"]) for state in states])
            ledgers = [_unpacked(state) for state in states]
            parts.ledger.load_state_dict(ledgers[0] if saved == world_size else ledgers)
        except (StateMismatchError, ConfigurationError) as error:
            problem = str(error)
        _raise_together(problem, path)
        if rank == 0:
            logger.info("the job goes on after step %d, from %s", step, path)
        return step

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


def _rank_and_world() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def _raise_together(problem: str, path: Path) -> None:
    """Raise on every rank what one of them can't go on from: the others would wait for it."""
    problems: list[Any] = [problem]
    if dist.is_initialized():
        problems = [None] * dist.get_world_size()
        dist.all_gather_object(problems, problem)
    for rank, text in enumerate(problems):
        if text:
            raise StateMismatchError(
                f"checkpoint {path} does not fit this job (rank {rank}): {text}; or begin anew, in another folder"
            )


def _packed(ledger: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ledger's state as its tensors and one text: a checkpoint takes nested plain values apart."""
    plain = {name: value for name, value in ledger.items() if not isinstance(value, torch.Tensor)}
    tensors = {name: value for name, value in ledger.items() if isinstance(value, torch.Tensor)}
    return {"ledger": json.dumps(plain), "tensors": tensors}


def _unpacked(state: Mapping[str, Any]) -> dict[str, Any]:
    return {**json.loads(state["ledger"]), **state["tensors"]}


def _read(state: dict[str, Any], path: Path) -> None:
    """Fill `state` from a checkpoint."""
    try:
        load(state, checkpoint_id=path, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        rank, (reason, _) = next(iter(error.failures.items()))
        raise StateMismatchError(f"checkpoint {path} is not one of this job (rank {rank}: {reason})") from error


def _read_rank(path: Path, rank: int) -> dict[str, Any]:
    """Return what one rank saved of its own; the sizes of its tensors are in the checkpoint."""
    saved = FileSystemReader(path).read_metadata().state_dict_metadata
    prefix = f"rank{rank}.tensors."
    state: dict[str, Any] = {
        "dataset": "",
        "ledger": "",
        "tensors": {
            name.removeprefix(prefix): torch.empty(kind.size, dtype=kind.properties.dtype)
            for name, kind in saved.items()
            if name.startswith(prefix) and isinstance(kind, TensorStorageMetadata)
        },
    }
    _read({f"rank{rank}": state}, path)
    return state
