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
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from otel_train.integrations.transformers import OtelTrainCallback
from tests.integrations.support.case_loop import TERMINATED, Case, call_cases
from tests.integrations.support.terminated import LAST, terminate
from tests.support.patience import BOUNDS

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
        self.crash: BaseException | None = None

    def forward(self, ids: torch.Tensor, labels: torch.Tensor | None = None, **others: Any) -> dict[str, torch.Tensor]:
        """Return the loss, or what a loss is made of."""
        crash, self.crash = self.crash, None
        if crash is not None:
            raise crash
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
    """Notes what the model computed in each step of each fit, and raises where that is meant."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.fits: list[dict[int, Batches]] = []
        self.crash: dict[int, BaseException] = {}
        """What the model raises in a step."""
        self.own_crash: dict[int, BaseException] = {}
        """What this raises after a step."""

    def on_train_begin(self, *_args: Any, **_others: Any) -> None:
        self.fits.append({})

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_others: Any) -> None:
        self.model.batches.clear()
        self.model.crash = self.crash.pop(state.global_step + 1, None)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_others: Any) -> None:
        self.fits[-1][state.global_step] = list(self.model.batches)
        if state.global_step in self.own_crash:
            raise self.own_crash.pop(state.global_step)


def made(folder: Path, variant: str) -> tuple[Trainer, Record]:
    """Return the Trainer of a variant, which makes `STEPS` steps in four epochs."""
    model = Model(accepts_loss_kwargs=variant != "averaging", returns_loss=variant != "function")
    record = Record(model)
    evaluates = variant in ("subclass", "fits")
    args = TrainingArguments(
        output_dir=str(folder / "trainer"), num_train_epochs=4, per_device_train_batch_size=4, use_cpu=True,
        gradient_accumulation_steps=3, report_to="wandb" if variant == "subclass" else "none", disable_tqdm=True,
        logging_steps=4, save_steps=5, learning_rate=0.05, remove_unused_columns=False, label_names=["labels"],
        average_tokens_across_devices=variant != "own_tokens", restore_callback_states_from_checkpoint=True,
        eval_strategy="steps" if evaluates else "no", eval_steps=3, eval_on_start=evaluates,
        metric_for_best_model="eval_a_loss" if evaluates else None, greater_is_better=True,
    )  # fmt: skip
    trainer = (OwnTrainer if variant == "subclass" else Trainer)(
        model, args, train_dataset=Rows(62), eval_dataset={"a": Rows(10), "b": Rows(7)},
        compute_loss_func=model.loss if variant == "function" else None,
        callbacks=[OtelTrainCallback(ring_dir=folder / "rings", max_in_flight=2 * STEPS, **BOUNDS), record],
    )  # fmt: skip
    return trainer, record


def run(case: Case, folder: Path) -> None:
    """Train, and write down each rank's own record."""
    os.environ["WANDB_DIR"] = str(folder)
    trainer, record = made(folder, case.variant)
    if case.variant == TERMINATED:
        record.model.register_forward_pre_hook(lambda *_: terminate_in_step(trainer, record, folder))
    if case.variant == "fits":
        train_often(trainer, record, folder)
    elif case.resumed:
        record.crash[CRASH] = FloatingPointError("the crash that is tested")
        with suppress(FloatingPointError):
            trainer.train()
        first = record.fits
        trainer, record = made(folder, case.variant)
        trainer.train(resume_from_checkpoint=True)
        record.fits = [{**first[0], **record.fits[0]}]
    else:
        trainer.train()
    write(trainer, record, folder)
    dist.barrier()


def write(trainer: Trainer, record: Record, folder: Path) -> None:
    """Write down this rank's own record."""
    written = {"fits": record.fits, "logs": trainer.state.log_history}
    (folder / f"rank{dist.get_rank()}.json").write_text(json.dumps(written))


def terminate_in_step(trainer: Trainer, record: Record, folder: Path) -> None:
    """Get SIGTERM in the first forward pass after `LAST` steps."""
    if len(record.fits[-1]) == LAST:
        write(trainer, record, folder)
        terminate(folder)


def train_often(trainer: Trainer, record: Record, folder: Path) -> None:
    """Evaluate and predict; train to the end twice, to two interrupts, and to an early stop; evaluate again."""
    trainer.evaluate()
    trainer.predict(Rows(5))
    assert not (folder / "rings").exists()
    trainer.train()
    trainer.train()
    for crashes in (record.crash, record.own_crash):
        crashes[3] = KeyboardInterrupt()
        with suppress(KeyboardInterrupt):
            trainer.train()
    trainer.add_callback(EarlyStoppingCallback())
    trainer.train()
    trainer.evaluate()


if __name__ == "__main__":
    os.environ["WANDB_MODE"] = "offline"
    del os.environ["TORCHELASTIC_RUN_ID"]  # the launch would give all sessions one run
    call_cases(run)
