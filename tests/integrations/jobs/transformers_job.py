"""transformers: a Trainer with its own collator and removal of columns, over datasets that are interleaved."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp()
os.environ["ACCELERATE_USE_CPU"] = "true"

import torch  # after the environment that these read
import torch.distributed as dist
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from otel_train.integrations import hf_datasets, transformers
from tests.integrations.support.case_loop import SAVED_AFTER, STEPS, Case, Row, call_cases, write_consumed
from tests.integrations.support.payload import SOURCES, WEIGHTS, numbers, rows_of
from tests.support.patience import BOUNDS

BATCH = 8
PROBABILITIES = [weight / sum(WEIGHTS.values()) for weight in WEIGHTS.values()]


class Model(torch.nn.Module):
    """A model that keeps the payload that it is trained on."""

    def __init__(self, steps: list[list[Row]]) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 1)
        self.steps = steps

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        if self.training:
            self.steps[-1] += rows_of(x)
        predicted = self.linear(x.float()).squeeze(1)
        return {"loss": ((predicted - labels) ** 2).mean() if labels is not None else None, "predicted": predicted}


class Stop(TrainerCallback):  # type: ignore[misc]  # its types are not there
    """Begins a list for the rows of each step, and ends the training after one."""

    def __init__(self, steps: list[list[Row]], last: int) -> None:
        self.steps = steps
        self.last = last

    def on_step_end(self, _args: Any, state: Any, control: Any, **_others: Any) -> None:
        self.steps.append([])
        control.should_training_stop = self.last == state.global_step


def table(source: str) -> Any:
    """Return a source with a column that the model's forward does not name."""
    rows = [
        {"x": (x := numbers(source, key)), "length": sum(x[3:]), "labels": 0.0, "unused": source} for key in range(600)
    ]
    return Dataset.from_list(rows)


def run(case: Case, folder: Path) -> None:
    """Train in one part, or in two with a checkpoint between them."""
    steps: list[list[Row]] = [[]]
    for last in (SAVED_AFTER, STEPS) if case.resumed else (STEPS,):
        sources = {source: table(source) for source in SOURCES}
        if case.variant == "stream":
            sources = {source: rows.to_iterable_dataset(num_shards=2) for source, rows in sources.items()}
        meter, rows = hf_datasets.track(
            sources,
            [0.5, 0.5] if case.variant == "wrong" else PROBABILITIES,
            seed=1,
            stopping_strategy="all_exhausted",
            tokens="length",
        )
        if case.variant == "wrong":
            meter.set_weights(WEIGHTS)
        micro = 2 if case.variant == "accumulated" else 1
        args = TrainingArguments(
            output_dir=str(folder / "trainer"), max_steps=STEPS, per_device_train_batch_size=BATCH // micro,
            gradient_accumulation_steps=micro, dataloader_num_workers=case.workers, save_steps=SAVED_AFTER,
            save_only_model=False, report_to="none", disable_tqdm=True, logging_strategy="no", use_cpu=True,
            eval_strategy="steps", eval_steps=20, per_device_eval_batch_size=BATCH,
        )  # fmt: skip
        held_out = rows.select(range(16)) if case.variant != "stream" else table("code").select(range(16))
        callbacks = [
            transformers.OtelTrainCallback(
                meter=meter, ring_dir=folder / "rings", run_id=case.name, max_in_flight=STEPS, **BOUNDS
            ),
            Stop(steps, last),
        ]
        trainer = Trainer(Model(steps), args, train_dataset=rows, eval_dataset=held_out, callbacks=callbacks)
        meter, trainer = transformers.track(trainer, meter)  # again: the callback has called it
        trainer.train(resume_from_checkpoint=len(steps) > 1)
    write_consumed(folder, steps[:-1])
    dist.barrier()


if __name__ == "__main__":
    call_cases(run)
