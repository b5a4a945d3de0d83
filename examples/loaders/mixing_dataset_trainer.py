"""Train a transformers Trainer on our own dataset: the picks are those that the model was given.

Run it on two ranks: ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 examples/loaders/mixing_dataset_trainer.py
It needs what tests/integrations/requirements/torch.in names.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

import otel_train
from otel_train.mixing import FileStream, MixedCollate, StreamMixingDataset


class Model(torch.nn.Module):
    """A model that takes "bytes", and nothing else of a row."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(256, 256)

    def forward(self, bytes: torch.Tensor) -> dict[str, torch.Tensor]:  # noqa: A002  # named as the row's value
        """Return the loss of the next bytes."""
        scores = self.table(bytes[:, :-1].long()).transpose(1, 2)
        return {"loss": torch.nn.functional.cross_entropy(scores, bytes[:, 1:].long())}


class EachStep(TrainerCallback):  # type: ignore[misc]  # transformers is not there when types are checked
    """Tells the session of each step."""

    def __init__(self, telemetry: otel_train.Telemetry) -> None:
        self.telemetry = telemetry

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_others: Any) -> None:
        """End a step of the optimizer."""
        self.telemetry.step(state.global_step)


def main() -> None:
    """Train for fifty steps on this file and torch's sources."""
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(  # makes the process group, by which the dataset deals its streams to the ranks
            folder, max_steps=50, per_device_train_batch_size=8, use_cpu=True, report_to="none", save_strategy="no",
            remove_unused_columns=False, accelerator_config={"dispatch_batches": False},
        )  # fmt: skip
        paths = {"code": torch.__file__, "prose": __file__}
        streams = [FileStream(f"{kind}-{n}", kind, path, chunk=32) for kind, path in paths.items() for n in range(2)]
        dataset = StreamMixingDataset(streams, {"code": 1, "prose": 3}, readers=2, batch_size=8)
        with otel_train.init(sources=[dataset]) as telemetry:
            collate, callbacks = MixedCollate(default_data_collator), [EachStep(telemetry)]
            Trainer(Model(), args, train_dataset=dataset, data_collator=collate, callbacks=callbacks).train()


if __name__ == "__main__":
    main()
