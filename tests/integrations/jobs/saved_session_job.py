"""A session as it is in a trainer's checkpoint: saved after two steps, and loaded by the session that goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler

import otel_train
from otel_train.step import Telemetry
from tests.support.patience import BOUNDS, have_nobody_send

os.environ.setdefault("NODE_RANK", "0")  # Composer's own launcher sets it, torchrun does not
ROWS: Any = torch.ones(16, 3)
Begin = Callable[[], Telemetry]


def go_on(telemetry: Telemetry, first: int) -> None:
    """Make two steps."""
    for step in (first, first + 1):
        telemetry.step(step, {"train/loss": float(step)})


def accelerate(begin: Begin, folder: Path) -> None:
    """Register the session with Accelerate."""
    from accelerate import Accelerator  # each trainer in its own environment

    for resumed in (False, True):
        accelerator = Accelerator(cpu=True)
        with begin() as telemetry:
            accelerator.register_for_checkpointing(telemetry)
            if resumed:
                accelerator.load_state(str(folder / "saved"))
            go_on(telemetry, 3 if resumed else 1)
            if not resumed:
                accelerator.save_state(str(folder / "saved"))
        dist.barrier()


def ignite(begin: Begin, folder: Path) -> None:
    """Give the session to ignite's Checkpoint."""
    from ignite.engine import Engine
    from ignite.handlers import Checkpoint, DiskSaver

    dist.init_process_group("gloo")
    for resumed in (False, True):
        with begin() as telemetry:
            parts = {"telemetry": telemetry}
            if resumed:
                Checkpoint.load_objects(parts, folder / "telemetry_0.pt")
            go_on(telemetry, 3 if resumed else 1)
            saver = Checkpoint(parts, DiskSaver(folder, require_empty=False), global_step_transform=lambda *_: 0)
            if not resumed:
                saver(Engine(lambda *_: None))
        dist.barrier()


def lightning(begin: Begin, folder: Path) -> None:
    """Have a callback of the user's own keep the session's state."""
    from lightning import Callback, LightningModule, Trainer

    class Session(Callback):  # type: ignore[misc]
        """Begins a session for each fit."""

        telemetry: Telemetry

        def setup(self, *_: Any, **__: Any) -> None:
            self.telemetry = begin()

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self.telemetry.step(trainer.global_step, {"train/loss": 1.0})

        def teardown(self, *_: Any, **__: Any) -> None:
            self.telemetry.close()

        def state_dict(self) -> dict[str, Any]:
            return self.telemetry.state_dict()

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.telemetry.load_state_dict(state_dict)

    class Model(LightningModule):  # type: ignore[misc]
        """One layer."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def training_step(self, batch: torch.Tensor, *_: Any) -> torch.Tensor:
            loss: torch.Tensor = self.layer(batch).square().mean()
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    path = str(folder / "middle.ckpt")
    for last, saved in ((2, None), (4, path)):
        trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=last, callbacks=[Session()], **quiet)
        trainer.fit(Model(), DataLoader(ROWS), ckpt_path=saved)
        if saved is None:
            trainer.save_checkpoint(path)


def composer(begin: Begin, folder: Path) -> None:
    """Have a callback of the user's own keep the session's state."""
    from composer import Callback, ComposerModel, Trainer

    class Session(Callback):  # type: ignore[misc]
        """Begins a session for each fit."""

        telemetry: Telemetry

        def init(self, *_: Any) -> None:
            self.telemetry = begin()

        def batch_end(self, state: Any, _logger: Any) -> None:
            self.telemetry.step(int(state.timestamp.batch), {"train/loss": 1.0})

        def close(self, *_: Any) -> None:
            self.telemetry.close()

        def state_dict(self) -> dict[str, Any]:
            return self.telemetry.state_dict()

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.telemetry.load_state_dict(state)

    class Model(ComposerModel):  # type: ignore[misc]
        """One layer."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.layer(batch)
            return outputs

        def loss(self, outputs: torch.Tensor, *_: Any) -> torch.Tensor:
            return outputs.square().mean()

    dist.init_process_group("gloo")
    for last, saved in ((2, None), (4, str(folder / "saved/ep0-ba2-rank0.pt"))):
        model = Model()
        trainer = Trainer(
            model=model,
            train_dataloader=DataLoader(ROWS, sampler=DistributedSampler(ROWS)),
            optimizers=torch.optim.SGD(model.parameters(), lr=0.01),
            max_duration=f"{last}ba",
            callbacks=[Session()],
            save_folder=str(folder / "saved"),
            save_interval="2ba",
            save_overwrite=True,
            load_path=saved,
            device="cpu",
            progress_bar=False,
        )
        trainer.fit()
        trainer.close()


if __name__ == "__main__":
    have_nobody_send()
    base = Path(sys.argv[1])
    trainers = {"accelerate": accelerate, "ignite": ignite, "lightning": lightning, "composer": composer}
    trainers[base.name](lambda: otel_train.init(ring_dir=base / "rings", **BOUNDS), base)
