"""Measure the mix that a transformers Trainer trains on.

Run it on two ranks: ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 examples/loaders/hf_trainer.py
It needs what tests/integrations/requirements/torch.in names.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

import otel_train
from otel_train.integrations import hf_datasets, transformers


class Model(torch.nn.Module):
    """A model that takes "ids" and "labels", and no other column."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 1)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss."""
        return {"loss": (self.linear(ids.float()).squeeze(1) - labels).square().mean()}


class EachStep(TrainerCallback):  # type: ignore[misc]  # transformers is not there when types are checked
    """Tells the session of each step."""

    def __init__(self, telemetry: otel_train.Telemetry) -> None:
        self.telemetry = telemetry

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_others: Any) -> None:
        """End a step of the optimizer."""
        self.telemetry.step(state.global_step)


def main() -> None:
    """Train for fifty steps."""
    row = {"ids": [1] * 16, "length": 16, "labels": 1.0}
    sources = {source: Dataset.from_list([row] * 1000) for source in ("code", "prose")}
    meter, dataset = hf_datasets.track(sources, [0.25, 0.75], seed=0, tokens="length")
    with tempfile.TemporaryDirectory() as folder, otel_train.init(sources=[meter]) as telemetry:
        args = TrainingArguments(folder, max_steps=50, use_cpu=True, report_to="none", save_strategy="no")
        trainer = Trainer(Model(), args, train_dataset=dataset, callbacks=[EachStep(telemetry)])
        meter, trainer = transformers.track(trainer, meter)
        trainer.train()


if __name__ == "__main__":
    main()
