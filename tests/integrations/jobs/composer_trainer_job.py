"""Composer: a Trainer with micro-batches, a metric, a callback that logs, evaluations and checkpoints."""

from __future__ import annotations

import json
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("NODE_RANK", "0")  # Composer's own launcher sets it, torchrun does not

import torch
import torch.distributed as dist
from composer import Trainer
from composer.callbacks import LRMonitor
from composer.models import ComposerModel
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchmetrics import MeanSquaredError

import otel_train
from otel_train.integrations.composer import OtelTrainLogger
from tests.integrations.support.case_loop import Case, Row, call_cases, write_consumed
from tests.integrations.support.payload import WEIGHTS, rows_of, sample
from tests.support.patience import BOUNDS

BATCH = 8
STEPS, SAVED_AFTER, FAILS_AT = 24, 14, 17


class Tagged(Dataset[Any]):
    """Samples of two sources, drawn by weight, tagged."""

    def __init__(self, meter: Any) -> None:
        self.tags = {source: meter.tag(source, tokens="tokens") for source in WEIGHTS}
        self.sources = random.Random(0).choices(list(WEIGHTS), list(WEIGHTS.values()), k=len(self))

    def __len__(self) -> int:
        return STEPS * BATCH * dist.get_world_size()

    def __getitem__(self, index: int) -> Any:
        return self.tags[self.sources[index]](sample(self.sources[index], index))


class Model(ComposerModel):  # type: ignore[misc]  # composer is not there when types are checked
    """A model that keeps what it was trained on, and its squared errors."""

    def __init__(self, fails_at: int) -> None:
        super().__init__()
        self.left = fails_at * BATCH
        self.linear = torch.nn.Linear(16, 1)
        self.metric = MeanSquaredError()
        self.rows: list[Row] = []
        self.errors: list[float] = []

    def forward(self, batch: Any) -> torch.Tensor:
        """Return a prediction for each row."""
        if self.training:
            self.left -= len(batch["x"])
            if self.left == 0:
                raise KeyboardInterrupt
            self.rows += rows_of(batch["x"])
        predicted: torch.Tensor = self.linear(batch["x"].float() / 100)
        return predicted.squeeze(1)

    def loss(self, outputs: torch.Tensor, batch: Any) -> torch.Tensor:
        """Return the mean of the squared errors."""
        errors = (outputs - batch["tokens"].float()).square()
        self.errors += errors.tolist()
        mean: torch.Tensor = errors.mean()
        return mean

    def get_metrics(self, is_train: bool) -> dict[str, Any]:
        """Return the metric of evaluations."""
        return {} if is_train else {"error": self.metric}

    def update_metric(self, batch: Any, outputs: Any, metric: Any) -> None:
        """Add a batch to a metric."""
        self.errors += (outputs - batch["tokens"]).square().tolist()
        metric.update(outputs, batch["tokens"].float())


class Record(OtelTrainLogger):
    """The logger, which keeps a rank's own record of each step and evaluation."""

    def __init__(self, model: Model, meter: Any, **options: Any) -> None:
        super().__init__(meter, **options)
        self.model = model
        self.consumed: list[list[Row]] = []
        self.train: dict[int, list[float]] = {}
        self.evaluation: dict[int, list[float]] = {}

    def batch_end(self, state: Any, logger: Any) -> None:
        """Keep what a batch was."""
        step = state.timestamp.batch.value
        self.consumed.append(self.model.rows)
        self.train[step] = self.model.errors
        self.model.rows, self.model.errors = [], []
        super().batch_end(state, logger)

    def eval_end(self, state: Any, logger: Any) -> None:
        """Keep what an evaluation was."""
        self.evaluation[state.timestamp.batch.value] = self.model.errors
        self.model.errors = []
        super().eval_end(state, logger)


def run(case: Case, folder: Path) -> None:
    """Train in one part, or in two with an interrupt, and a checkpoint some steps before it, between them."""
    consumed: list[list[Row]] = []
    record: dict[str, dict[int, list[float]]] = {"train": {}, "evaluation": {}}
    for fails_at in (FAILS_AT, 0) if case.resumed else (0,):
        torch.manual_seed(1)
        model, meter = Model(fails_at), otel_train.SourceMeter(WEIGHTS)
        logger = Record(model, meter, ring_dir=folder / "rings", **BOUNDS)
        rows = Tagged(meter)
        held_out: Any = [sample("code", key) for key in range(4 * BATCH)]
        trainer = Trainer(
            model=model,
            train_dataloader=DataLoader(rows, BATCH, sampler=DistributedSampler(rows)),
            eval_dataloader=DataLoader(held_out, BATCH, sampler=DistributedSampler(held_out, shuffle=False)),
            eval_interval="4ba",
            max_duration=f"{STEPS}ba",
            optimizers=torch.optim.SGD(model.parameters(), lr=0.01),
            device="cpu",
            device_train_microbatch_size=BATCH // 2,
            loggers=[logger],
            callbacks=[LRMonitor()],
            save_folder=str(folder / "checkpoints"),
            save_interval=f"{SAVED_AFTER // 2}ba",
            load_path=str(folder / "checkpoints" / f"ep0-ba{SAVED_AFTER}-rank0.pt") if consumed else None,
            progress_bar=False,
        )
        try:
            with suppress(KeyboardInterrupt):
                trainer.fit()
        finally:
            trainer.close()
        consumed = consumed[:SAVED_AFTER] + logger.consumed
        record["train"] |= logger.train
        record["evaluation"] |= logger.evaluation
    write_consumed(folder, consumed)
    (folder / f"errors{dist.get_rank()}.json").write_text(json.dumps(record))
    dist.barrier()


if __name__ == "__main__":
    call_cases(run)
