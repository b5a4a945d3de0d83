"""torchtitan: its Trainer, sharded or as a pipeline, with a loader whose mix is counted, validation and checkpoints."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import otel_train
from tests.integrations.support import titan_on_cpu as titan  # before torchtitan's own

# isort: split
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import default_adamw
from torchtitan.components.validate import Validator
from torchtitan.config import ParallelismConfig, TrainingConfig
from torchtitan.trainer import Trainer

from otel_train.integrations import torchtitan
from tests.integrations.support.case_loop import Case, Row, call_cases, write_consumed
from tests.integrations.support.payload import WEIGHTS, rows_of, sample
from tests.support.patience import BOUNDS

BATCH, MICRO = 4, 2
STEPS, SAVED_AFTER, FAILS_AT = 24, 14, 17
Parts = dict[int, list[tuple[float, int]]]


@dataclass
class Record:
    """What a rank trained on and validated with, by step; the parts of a loss are sums and their numbers of tokens."""

    trainer: Any = None
    rows: dict[int, list[Row]] = field(default_factory=lambda: defaultdict(list))
    train: Parts = field(default_factory=lambda: defaultdict(list))
    validation: Parts = field(default_factory=lambda: defaultdict(list))

    def note(self, loss: float, tokens: int, trains: bool) -> None:
        """Note a part of a loss."""
        (self.train if trains else self.validation)[self.trainer.step].append((loss, tokens))

    def forget_after(self, step: int) -> None:
        """Forget what no checkpoint has."""
        for by_step in (self.rows, self.train, self.validation):
            for later in [number for number in by_step if number > step]:
                del by_step[later]


RECORD = Record()


class Loader(BaseDataLoader):  # type: ignore[misc]  # its types are not there
    """Rows of two sources drawn by weight, for the data-parallel rank; those of rank 1 have few labels."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):  # type: ignore[misc]
        """What training and validation read differently."""

        infinite: bool = True
        validates: bool = False
        tagged: bool = True
        fails_at: int = 0

    def __init__(self, config: Any, *, dp_rank: int, local_batch_size: int, **_others: Any) -> None:
        self.config, self.rank, self.batch, self.read = config, dp_rank, local_batch_size, 0
        self.meter = otel_train.SourceMeter(WEIGHTS)
        self.tags = {source: self.meter.tag(source, tokens="tokens") for source in WEIGHTS}

    def __iter__(self) -> Iterator[Any]:
        while True:
            if RECORD.trainer.step == self.config.fails_at:
                raise KeyboardInterrupt
            self.read += 1
            choice = random.Random(1000 * self.rank + self.read)
            sources = choice.choices(list(WEIGHTS), list(WEIGHTS.values()), k=self.batch)
            rows = [sample(source, choice.randrange(600)) for source in sources]
            if self.config.tagged:
                rows = [self.tags[source](row) for source, row in zip(sources, rows, strict=True)]
            batch = torch.utils.data.default_collate(rows)
            x = batch.pop("x")
            del batch["tokens"]
            labels = torch.where(x == 0, -100, x)
            labels[:, 2 if self.rank else 16 :] = -100
            if not self.config.validates:
                RECORD.rows[RECORD.trainer.step] += rows_of(x)
            yield {"input": x, **batch}, labels

    def state_dict(self) -> dict[str, int]:
        return {f"rank{self.rank}": self.read}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.read = state[f"rank{self.rank}"]


class Processor(MetricsProcessor):  # type: ignore[misc]
    """A processor of a user's own, whose further value is each rank's own."""

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):  # type: ignore[misc]
        """That of torchtitan's."""

    def log(self, step: int, *losses: float, extra_metrics: Any = None) -> None:
        """Log the number of labels, too."""
        labels = sum(tokens for _, tokens in RECORD.train[step])
        super().log(step, *losses, extra_metrics={**extra_metrics, "own/labels": labels})


def configured(case: Case, folder: Path, fails_at: int) -> Any:
    """Return the configuration of a trainer."""
    pipeline, untracked = case.variant == "pipeline", case.variant == "older" and fails_at
    return Trainer.Config(
        model_spec=titan.SPEC,
        loss=titan.NotedLoss.Config(global_vocab_size=titan.VOCABULARY),
        optimizer=default_adamw(lr=0.01),
        training=TrainingConfig(
            local_batch_size=BATCH,
            global_batch_size=BATCH * MICRO * (1 if pipeline else 2),
            seq_len=16,
            steps=STEPS,
            disable_cuda_graphs=True,
        ),
        parallelism=ParallelismConfig(
            pipeline_parallel_degree=2 if pipeline else 1,
            pipeline_parallel_schedule="GPipe",
            pipeline_parallel_microbatch_size=BATCH // 2,
            module_fqns_per_model_part=titan.STAGES if pipeline else None,
        ),
        dataloader=Loader.Config(fails_at=fails_at, tagged=not untracked),
        tokenizer=titan.Words.Config(),
        metrics=Processor.Config(log_freq=1 if case.variant == "each" else 5, enable_tensorboard=True),
        validator=Validator.Config(
            enable=True, freq=6, steps=2, dataloader=Loader.Config(validates=True, tagged=False)
        ),
        checkpoint=CheckpointManager.Config(enable=True, interval=SAVED_AFTER // 2),
        dump_folder=str(folder / "titan"),
    )


def run(case: Case, folder: Path) -> None:
    """Train in one part, or in two with an interrupt, and a checkpoint some steps before it, between them."""
    global RECORD  # noqa: PLW0603  # torchtitan makes loader and loss by itself
    RECORD = Record()
    titan.NotedLoss.note = RECORD.note
    options: dict[str, Any] = {"ring_dir": folder / "rings", **BOUNDS}
    for fails_at in (FAILS_AT, 0) if case.resumed else (0,):
        config = configured(case, folder, fails_at)
        if case.variant == "each":
            trainer = torchtitan.track(config, lambda trainer: trainer.dataloader.meter, **options).build()
        else:
            trainer = config.build()
            if not (case.variant == "older" and fails_at):
                trainer = torchtitan.track(trainer, trainer.dataloader.meter, **options)
        RECORD.trainer = trainer
        RECORD.forget_after(0 if fails_at else SAVED_AFTER)
        with suppress(KeyboardInterrupt):
            trainer.train()
        trainer.close()
    write_consumed(folder, [RECORD.rows[step] for step in range(1, STEPS + 1)])
    parts = {"train": RECORD.train, "validation": RECORD.validation}
    (folder / f"losses{dist.get_rank()}.json").write_text(json.dumps(parts))
    dist.barrier()
    if dist.get_rank() == 0:
        (folder / "logged.json").write_text(json.dumps(logged(folder)))


def logged(folder: Path) -> dict[int, dict[str, float]]:
    """Return what torchtitan's own logger has written, by step."""
    values: dict[int, dict[str, float]] = defaultdict(dict)
    for path in sorted(folder.rglob("events.*"), key=lambda path: path.stat().st_mtime):
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                values[event.step][tag] = event.value
    return values


if __name__ == "__main__":
    call_cases(run)
