"""Record what a transformers Trainer trains: each step's own loss over all ranks, and its evaluations.

Run it on two ranks: ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 examples/trainers/hf_trainer.py
It needs what tests/integrations/requirements/torch.in names.
"""

from __future__ import annotations

import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from otel_train.integrations.transformers import OtelTrainCallback


def rows(count: int) -> list[dict[str, torch.Tensor]]:
    """Return sequences of sixteen tokens, of which each has another number to predict."""
    tokens = torch.arange(16)
    return [
        {"input_ids": (tokens + row) % 32, "labels": torch.where(tokens > row % 12, (tokens + row) % 32, -100)}
        for row in range(count)
    ]


def main() -> None:
    """Train for two epochs."""
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, **size))
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder,
            num_train_epochs=2,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            eval_strategy="steps",
            eval_steps=8,
            save_strategy="no",
            use_cpu=True,
        )
        trainer = Trainer(model, args, train_dataset=rows(160), eval_dataset=rows(16), callbacks=[OtelTrainCallback()])
        trainer.train()


if __name__ == "__main__":
    main()
