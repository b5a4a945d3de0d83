"""Our own dataset under the loaders and trainers of others, straight and resumed."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

os.environ["ACCELERATE_USE_CPU"] = "true"

import lightning  # after the environment that these read
import torch
import torch.distributed as dist
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

import otel_train
from otel_train.mixing import MixedCollate, StreamMixingDataset
from tests.integrations.support.case_loop import SAVED_AFTER, STEPS, Case, Row, call_cases, write_consumed
from tests.integrations.support.payload import SOURCES, WEIGHTS, numbers, rows_of
from tests.support.patience import BOUNDS

BATCH = 8


@dataclass(frozen=True)
class Documents:
    """A stream whose rows tell their stream and position."""

    id: str
    modality: str
    first: int
    length: int

    def __len__(self) -> int:
        return self.length

    def read(self, position: int) -> tuple[dict[str, Any], int]:
        """Return a row."""
        x = torch.tensor(numbers(self.modality, self.first + position))
        return {"x": x}, int(x[3:].sum())


@dataclass
class Part:
    """A part of a case, from one start of the job to its end."""

    case: Case
    folder: Path
    dataset: StreamMixingDataset
    last: int
    consumed: list[list[Row]]
    keys: list[int]
    states: dict[str, Any]
    """What the part before has saved: "dataset" and "loader"."""
    telemetry: Any = None
    micro: list[torch.Tensor] = field(default_factory=list)

    @property
    def resumes(self) -> bool:
        """Whether there was a part before."""
        return bool(self.consumed) and self.last > SAVED_AFTER

    def train(self, x: torch.Tensor) -> None:
        """Note what a model is trained on, of a step or a part of one."""
        self.micro.append(x.clone())

    def end_step(self) -> None:
        """End a step of the loop."""
        x = torch.cat(self.micro)
        self.micro.clear()
        self.consumed.append(rows_of(x))
        self.keys += [int(key) * len(SOURCES) + int(source) - 1 for source, key in x[:, :2].tolist()]
        self.telemetry.step(len(self.consumed))


def plain_loop(part: Part, loader: Any) -> None:
    """Train by a loop of one's own."""
    for batch in islice(loader, part.last - len(part.consumed)):
        part.train(batch["x"])
        part.end_step()


def torch_loop(part: Part) -> None:
    """Read by torch's DataLoader."""
    plain_loop(part, DataLoader(part.dataset, batch_size=BATCH, num_workers=part.case.workers))


def stateful_loop(part: Part) -> None:
    """Read by torchdata's StatefulDataLoader, which goes on from its own state."""
    often = 4 if "snapshots" in part.case.variant else 1
    loader = StatefulDataLoader(
        part.dataset, batch_size=BATCH, num_workers=part.case.workers, snapshot_every_n_steps=often
    )
    if part.resumes:
        loader.load_state_dict(part.states["loader"])
    plain_loop(part, loader)
    part.states["loader"] = loader.state_dict()


def accelerate_loop(part: Part) -> None:
    """Read by a loader that accelerate divides by the processes."""
    split = "split" in part.case.variant
    accelerator = Accelerator(
        dataloader_config=DataLoaderConfiguration(
            dispatch_batches=None if "dispatched" in part.case.variant else False,
            split_batches=split,
            use_stateful_dataloader="stateful" in part.case.variant,
        )
    )
    rows = BATCH * (dist.get_world_size() if split else 1)
    dropping = "dropping" in part.case.variant
    loader = DataLoader(part.dataset, batch_size=rows, num_workers=part.case.workers, drop_last=dropping)
    if "dispatched" in part.case.variant:
        refusal = ""
        try:
            next(iter(accelerator.prepare(loader)))
        except otel_train.ConfigurationError as error:
            refusal = str(error)
        (part.folder / f"refusal{dist.get_rank()}").write_text(refusal)
        return
    plain_loop(part, accelerator.prepare(loader))


class Module(lightning.LightningModule):  # type: ignore[misc]  # its types are not there
    """A model that notes what it is trained on, under Lightning."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 1)
        self.part = part

    def training_step(self, batch: Any) -> torch.Tensor:
        """Train on a batch."""
        self.part.train(batch["x"])
        self.part.end_step()
        loss: torch.Tensor = self.linear(batch["x"].float()).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=1e-9)


def lightning_loop(part: Part) -> None:
    """Train by Lightning, which holds one batch ahead."""
    trainer = lightning.Trainer(
        max_steps=part.last, accelerator="cpu", devices=dist.get_world_size(), strategy="ddp", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    checkpoint = part.folder / "lightning.ckpt"
    loader = DataLoader(part.dataset, batch_size=BATCH, num_workers=part.case.workers)
    trainer.fit(Module(part), loader, ckpt_path=str(checkpoint) if part.resumes else None)
    trainer.save_checkpoint(checkpoint)


class Model(torch.nn.Module):
    """A model that notes what it is trained on, under transformers."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 1)
        self.part = part

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.part.train(x)
        return {"loss": self.linear(x.float()).square().mean()}


class EachStep(TrainerCallback):  # type: ignore[misc]  # its types are not there
    """Ends each step of telemetry, and keeps the dataset's state beside the checkpoint."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def on_step_end(self, _args: Any, state: Any, control: Any, **_others: Any) -> None:
        self.part.end_step()
        control.should_training_stop = state.global_step == self.part.last


def stacked(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Make a batch as a data collator does that knows the model's arguments only."""
    return {"x": torch.stack([row["x"] for row in rows])}


def trainer_loop(part: Part) -> None:
    """Train by transformers' Trainer, which looks one batch ahead and collects the batches of a step first."""
    micro = 2 if "accumulated" in part.case.variant else 1
    args = TrainingArguments(
        output_dir=str(part.folder / "trainer"), max_steps=STEPS, per_device_train_batch_size=BATCH // micro,
        gradient_accumulation_steps=micro, dataloader_num_workers=part.case.workers, save_steps=SAVED_AFTER,
        report_to="none", disable_tqdm=True, logging_strategy="no", use_cpu=True, learning_rate=1e-9,
        remove_unused_columns="removing" in part.case.variant, accelerator_config={"dispatch_batches": False},
        ignore_data_skip="skipping" not in part.case.variant,
    )  # fmt: skip
    trainer = Trainer(
        Model(part), args, train_dataset=part.dataset, data_collator=MixedCollate(stacked), callbacks=[EachStep(part)]
    )
    refusal = ""
    try:
        trainer.train(resume_from_checkpoint=part.resumes)
    except otel_train.ConfigurationError as error:
        refusal = str(error)
    (part.folder / f"refusal{dist.get_rank()}").write_text(refusal)


LOOPS: dict[str, Callable[[Part], None]] = {
    "torch": torch_loop,
    "stateful": stateful_loop,
    "accelerate": accelerate_loop,
    "lightning": lightning_loop,
    "trainer": trainer_loop,
}


def streams(length: int) -> Iterator[Documents]:
    """Yield two streams of each source, one for each rank."""
    for number in range(2):
        for source in SOURCES:
            yield Documents(f"{source}{number}", source, 1000 * number, length)


def run(case: Case, folder: Path) -> None:
    """Train in one part, or in two with what is saved between them."""
    words = case.variant.split("-")
    micro, ends = 2 if "accumulated" in words else 1, bool({"completing", "dropping"} & set(words))
    consumed: list[list[Row]] = []
    keys: list[int] = []
    states: dict[str, Any] = {}
    for last in (SAVED_AFTER, STEPS) if case.resumed else (STEPS,):
        dataset = StreamMixingDataset(
            streams(45 if ends else 900), WEIGHTS, slots=SOURCES, batch_size=BATCH // micro, rows_per_step=BATCH,
            seed=7, at_end="next",
        )  # fmt: skip
        if states and not {"alone", "skipping"} & set(words):
            dataset.load_state_dict(states["dataset"])
        part = Part(case, folder, dataset, last, consumed, keys, states)
        session = otel_train.init(
            sources=[dataset], ring_dir=folder / "rings", run_id=case.name, max_in_flight=STEPS, **BOUNDS
        )
        with session as part.telemetry:
            LOOPS[words[0]](part)
        states["dataset"] = dataset.state_dict()
        gc.collect()  # ends the workers
    write_consumed(folder, consumed)
    (folder / f"keys{dist.get_rank()}.json").write_text(json.dumps([keys, states["dataset"]["plan"]["index"]]))


if __name__ == "__main__":
    call_cases(run)
