"""The reference job's training loop."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import otel_train
from otel_train.exceptions import ConfigurationError
from otel_train.ledger import StateLedger
from otel_train.mixing import StreamMixingDataset, WeightSchedule
from otel_train.paths import absolute
from otel_train.trainer.config import MixingConfig, TrainerConfig
from otel_train.trainer.data import find_streams
from otel_train.trainer.event_log import EventLog
from otel_train.trainer.model import ByteEncoder, plan_waves

logger = logging.getLogger(__name__)

LOSS_KEY = "train/loss"
TOKENS_KEY = "train/tokens"


def train(config: TrainerConfig, base: Path, events_dir: Path | None = None) -> float:
    """Train on this rank and return the last step's loss.

    Args:
        config: The job.
        base: Folder in which relative patterns of its data begin.
        events_dir: Folder for the rank's events; None to write none.
    """
    with contextlib.ExitStack() as stack:
        rank = _join(stack)
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        events = stack.enter_context(EventLog(events_dir, rank)) if events_dir is not None else None
        torch.manual_seed(config.job.seed)
        dataset = build_dataset(config, base, events)
        ledger = build_ledger(config, device, events)
        encoder = ByteEncoder(config.model.embedding, config.model.hidden).to(device)
        model: nn.Module = DistributedDataParallel(encoder) if dist.is_initialized() else encoder
        optimizer = torch.optim.Adam(model.parameters(), config.model.learning_rate)
        loader = DataLoader(dataset, batch_size=config.mixing.rows, num_workers=config.mixing.workers)
        telemetry = stack.enter_context(
            otel_train.init(
                sources=[dataset, ledger],
                metrics=[otel_train.Scalar(LOSS_KEY, by="modality"), otel_train.Scalar(TOKENS_KEY, "sum")],
                log_every=config.telemetry.log_every,
                blocking=config.telemetry.blocking,
                rank_interval=config.telemetry.rank_interval,
                events=events,
            )
        )
        saved, save = 0, None
        if config.checkpoint.folder:
            # Here, because torch.distributed.checkpoint takes as long to import as torch itself.
            from otel_train.trainer.checkpoint import Checkpoints, Parts  # noqa: PLC0415

            parts = Parts(model=model, optimizer=optimizer, dataset=dataset, ledger=ledger, telemetry=telemetry)
            checkpoints = Checkpoints(absolute(config.checkpoint.folder), config.checkpoint.keep)
            saved, save = checkpoints.load(parts), partial(checkpoints.save, parts=parts)
        loss = torch.zeros(())
        if saved >= config.job.steps:
            logger.info("all %d steps were made already", config.job.steps)
            return float(loss)
        for step, batch in enumerate(telemetry.timed(loader), start=saved + 1):
            loss, by_row = train_step(batch, model, optimizer, ledger, device)
            losses = otel_train.PerRow(by_row, weights=batch["length"])
            telemetry.step(step, {LOSS_KEY: losses, TOKENS_KEY: batch["length"].sum()})
            if rank == 0 and step % 10 == 0:
                logger.info("step %d: loss %.3f", step, float(loss))
            if save is not None and config.checkpoint.due(step, config.job.steps):
                save(step)
            if step == config.job.steps:
                break
        return float(loss)


def train_step(
    batch: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ledger: StateLedger,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Train on one batch, with each stream's state taken from the ledger and put back.

    Returns:
        The loss, and that of each row, float [rows], both detached.
    """
    streams, waves = plan_waves(batch["stream"])
    states, _ = ledger.fetch(streams)
    loss, after, by_row = model(
        batch["bytes"].to(device),
        batch["length"].to(device),
        (batch["position"] == 0).to(device),
        states,
        [(rows.to(device), indices.to(device)) for rows, indices in waves],
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    ledger.store(streams, after)
    return torch.as_tensor(loss).detach(), torch.as_tensor(by_row)


def build_dataset(config: TrainerConfig, base: Path, events: EventLog | None) -> StreamMixingDataset:
    """Return the dataset that a configuration describes, for this rank.

    Raises:
        ConfigurationError: `[mixing]` does not fit the streams; the message begins with the table's name.
    """
    mixing = config.mixing
    streams = find_streams(config.data, base)
    try:
        return StreamMixingDataset(
            streams,
            _weights(mixing, tuple(config.data.modalities)),
            readers=None if mixing.slots else mixing.readers,
            slots=mixing.slots or None,
            reader_bias=mixing.reader_bias or None,
            batch_size=mixing.rows,
            at_end=mixing.at_end,
            seed=config.job.seed,
            horizon=mixing.horizon,
            events=events,
        )
    except ConfigurationError as error:
        # The dataset names its own arguments; they have the names of the table's keys.
        raise ConfigurationError(f"[mixing]: {error}") from error


def build_ledger(config: TrainerConfig, device: torch.device, events: EventLog | None) -> StateLedger:
    """Return the ledger that a configuration describes, for this rank."""
    return StateLedger(
        (config.model.hidden,),
        capacity=config.ledger.capacity,
        device=device,
        max_idle_steps=config.ledger.max_idle_steps or None,
        recently_evicted=config.ledger.recently_evicted or None,
        events=events,
    )


def _weights(mixing: MixingConfig, modalities: tuple[str, ...]) -> Mapping[str, float] | WeightSchedule:
    first = mixing.weights or dict.fromkeys(modalities, 1.0)
    if not mixing.schedule:
        return first
    return WeightSchedule(((1, first), *((change.step, change.weights) for change in mixing.schedule)))


def _join(stack: contextlib.ExitStack) -> int:
    """Join the process group that torchrun prepared, if it did, and return the rank."""
    if "RANK" not in os.environ:
        return 0
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    stack.callback(dist.destroy_process_group)
    return dist.get_rank()
