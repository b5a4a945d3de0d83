"""transformers' Trainer with our callback: each rank writes down what its own model computed, and what was logged."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["ACCELERATE_USE_CPU"] = "true"
os.environ["HF_HOME"] = tempfile.mkdtemp()

import torch  # after the environment that these read
import torch.distributed as dist
from transformers import Trainer, TrainerCallback, TrainingArguments

from otel_train.integrations.transformers import OtelTrainCallback
from tests.integrations.support.case_loop import Case, call_cases

Batches = list[tuple[float, int]]
"""The sum of a batch's losses, and the number of its tokens."""
STEPS = 12
CRASH = 8
"""Step in which a resumed case crashes; its last checkpoint is of step 5."""


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Rows of eight tokens, of which one to eight count."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = (torch.arange(8) * 7 + index * 3) % 16
        return {"ids": ids, "labels": torch.where(torch.arange(8) <= index * 5 % 8, (ids + index) % 16, -100)}


class Model(torch.nn.Module):
    """A model that keeps what it has computed."""

    def __init__(self, *, accepts_loss_kwargs: bool = True, returns_loss: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(16, 8)
        self.head = torch.nn.Linear(8, 16)
        self.accepts_loss_kwargs = accepts_loss_kwargs
        self.returns_loss = returns_loss
        self.batches: Batches = []
        self.crashes = False

    def forward(self, ids: torch.Tensor, labels: torch.Tensor | None = None, **others: Any) -> dict[str, torch.Tensor]:
        """Return the loss, or what a loss is made of."""
        if self.crashes:
            raise FloatingPointError("the crash that is tested")
        logits = self.head(self.embedding(ids))
        if not self.returns_loss or labels is None:
            return {"logits": logits}
        return {"loss": self.loss({"logits": logits}, labels, others.get("num_items_in_batch"))}

    def loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        """Return the sum of the tokens' losses over the number that is given, or their own."""
        total = torch.nn.functional.cross_entropy(outputs["logits"].flatten(0, 1), labels.flatten(), reduction="sum")
        count = (labels != -100).sum()
        if self.training:
            self.batches.append((total.item(), int(count)))
        return total / (count if num_items_in_batch is None else num_items_in_batch)


class OwnTrainer(Trainer):  # type: ignore[misc]  # its types are not there
    """One that computes its loss itself, and logs more, as those of TRL do."""

    loss_is_scaled_for_ga = False
    rewards = 0

    def compute_loss(self, model: Any, inputs: Any, return_outputs: Any = None, **_others: Any) -> Any:
        """Return the mean over the batch."""
        loss = model(**inputs)["loss"]
        return (loss, {"loss": loss}) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Note a reward of this rank's."""
        self.rewards += dist.get_rank() + 1
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the rewards, which each rank has its own of."""
        if "loss" in logs:
            logs["reward"] = self.rewards
        super().log(logs, *args, **kwargs)


class Record(TrainerCallback):  # type: ignore[misc]
    """Notes what the model computed in each step, and has it crash where that is meant."""

    def __init__(self, model: Model, crash: int = 0) -> None:
        self.model = model
        self.crash = crash
        self.steps: dict[int, Batches] = {}

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_others: Any) -> None:
        self.model.batches.clear()
        self.model.crashes = state.global_step + 1 == self.crash

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_others: Any) -> None:
        self.steps[state.global_step] = list(self.model.batches)


def made(
    folder: Path, variant: str, crash: int = 0, callback: OtelTrainCallback | None = None
) -> tuple[Trainer, Record]:
    """Return the Trainer of a variant, which makes `STEPS` steps in four epochs."""
    model = Model(accepts_loss_kwargs=variant != "averaging", returns_loss=variant != "function")
    record = Record(model, crash)
    evaluates = variant in ("subclass", "repeated")
    args = TrainingArguments(
        output_dir=str(folder / "trainer"), num_train_epochs=4, per_device_train_batch_size=4, use_cpu=True,
        gradient_accumulation_steps=3, report_to="none", disable_tqdm=True, logging_steps=4, save_steps=5,
        learning_rate=0.05, average_tokens_across_devices=variant != "own_tokens", remove_unused_columns=False,
        eval_strategy="steps" if evaluates else "no", eval_steps=3, eval_on_start=evaluates,
        metric_for_best_model="eval_a_loss" if evaluates else None, greater_is_better=True,
    )  # fmt: skip
    trainer = (OwnTrainer if variant == "subclass" else Trainer)(
        model, args, train_dataset=Rows(62), eval_dataset={"a": Rows(10), "b": Rows(7)},
        compute_loss_func=model.loss if variant == "function" else None,
        callbacks=[callback or OtelTrainCallback(ring_dir=folder / "rings", max_in_flight=2 * STEPS), record],
    )  # fmt: skip
    return trainer, record


def run(case: Case, folder: Path) -> None:
    """Train, and write down each rank's own record."""
    trainer, record = made(folder, case.variant, CRASH if case.resumed else 0)
    if case.resumed:
        with suppress(FloatingPointError):
            trainer.train()
        before = record.steps
        trainer, record = made(folder, case.variant)
        trainer.train(resume_from_checkpoint=True)
        record.steps = {**before, **record.steps}
    else:
        trainer.train()
    written = {"steps": record.steps, "logs": trainer.state.log_history}
    (folder / f"rank{dist.get_rank()}.json").write_text(json.dumps(written))
    dist.barrier()


if __name__ == "__main__":
    call_cases(run)
