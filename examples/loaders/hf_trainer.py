"""Measure the mix that a transformers Trainer trains on.

Run it on two ranks: ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 examples/loaders/hf_trainer.py
It needs what tests/integrations/requirements/torch.in names.
"""

from __future__ import annotations

import tempfile

import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from otel_train.integrations import hf_datasets, transformers


class Model(torch.nn.Module):
    """A model that takes "ids" and "labels", and no other column."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 1)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss."""
        return {"loss": (self.linear(ids.float()).squeeze(1) - labels).square().mean()}


def main() -> None:
    """Train for fifty steps."""
    row = {"ids": [1] * 16, "length": 16, "labels": 1.0}
    sources = {source: Dataset.from_list([row] * 1000) for source in ("code", "prose")}
    meter, dataset = hf_datasets.track(sources, [0.25, 0.75], seed=0, tokens="length")
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(folder, max_steps=50, use_cpu=True, report_to="none", save_strategy="no")
        callback = transformers.OtelTrainCallback(meter=meter)
        trainer = Trainer(Model(), args, train_dataset=dataset, callbacks=[callback])
        trainer.train()


if __name__ == "__main__":
    main()
