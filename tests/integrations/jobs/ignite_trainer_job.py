"""pytorch-ignite's trainers under DDP, with evaluators, checkpoints and whatever ends a run."""

from __future__ import annotations

import random
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver, ProgressBar, WandBLogger
from ignite.metrics import Average, Loss, RunningAverage
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import default_collate

from otel_train.integrations.ignite import OtelTrainHandler
from otel_train.mixing import SourceMeter
from tests.integrations.support.case_loop import Case, Row, call_cases, write_consumed
from tests.integrations.support.payload import SOURCES, WEIGHTS, rows_of, sample
from tests.integrations.support.terminated import LAST, terminate
from tests.integrations.support.trainer_record import RankRecord
from tests.support.patience import BOUNDS

EPOCH, EPOCHS = 10, 2
"""Iterations of an epoch, and epochs of a run."""
SAVED = 7
"""Iteration after which a resumed case is saved, within an epoch."""
MICRO = 4
"""Iterations of a step of the optimizer, where a case accumulates."""


def options(case: Case, folder: Path) -> dict[str, Any]:
    """Return those of a case's sessions."""
    return {"ring_dir": folder / "rings", "run_id": case.name, "max_in_flight": 40, **BOUNDS}


class Trial:
    """A trainer with its evaluator, which notes each loss when it is computed.

    Args:
        case: The variant says what it does besides.
        folder: Of the case.
        record: Of this rank.
    """

    def __init__(self, case: Case, folder: Path, record: RankRecord) -> None:
        self.record = record
        self.every = MICRO if case.variant == "accumulated" else 1
        self.rows = dist.get_rank() * 8 + 4
        model = DistributedDataParallel(torch.nn.Linear(3, 1))
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        loss = torch.nn.functional.mse_loss
        self.trainer = create_supervised_trainer(
            model, self.optimizer, loss, output_transform=self.noted, gradient_accumulation_steps=self.every
        )
        self.evaluator = create_supervised_evaluator(model, {"mse": Loss(loss)})
        self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, self.note_evaluation)
        # Its handlers come first, as a user's often do.
        self.handler = OtelTrainHandler(
            **options(case, folder),
            accumulation_steps=self.every,
            weight=lambda engine: float(len(engine.state.batch[0])),
        )
        self.handler.attach(self.trainer, {"val": self.evaluator})
        self.to_save = {
            "trainer": self.trainer, "model": model, "optimizer": self.optimizer, "telemetry": self.handler,
        }  # fmt: skip

    @property
    def step(self) -> int:
        """Step that the trainer has come to."""
        return int(self.trainer.state.iteration) // self.every

    def batch(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch of as many rows as nobody else has."""
        inputs = torch.randn(self.rows + number % 3, 3, generator=torch.Generator().manual_seed(number))
        return inputs, inputs.sum(1, keepdim=True) + dist.get_rank()

    def batches(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return an epoch."""
        return [self.batch(number) for number in range(EPOCH)]

    def noted(self, inputs: torch.Tensor, _y: Any, _prediction: Any, loss: torch.Tensor) -> torch.Tensor:
        """Note an iteration's loss in its step, and return it."""
        step = -(-self.trainer.state.iteration // self.every)
        self.record.note(step, {"train/loss": loss.detach()}, weight=len(inputs))
        return loss.detach()

    def evaluate(self) -> None:
        """Evaluate on other rows than the ones that are trained on."""
        self.evaluator.run([self.batch(number) for number in (100, 101)])

    def note_evaluation(self) -> None:
        """Note what the evaluator has measured over all ranks."""
        self.record.note(self.step, {"val/mse": self.evaluator.state.metrics["mse"]})

    def note_metric(self, name: str) -> None:
        """Note a metric of the trainer."""
        self.record.note(self.step, {f"train/{name}": self.trainer.state.metrics[name]})

    def run(self, epochs: int = EPOCHS) -> None:
        """Train."""
        self.trainer.run(self.batches(), max_epochs=epochs)


def run_plain(trial: Trial, saver: Any, *, resumed: bool) -> None:
    """Evaluate before the first step, within and after epochs, and after the last step; save within an epoch."""
    trainer = trial.trainer
    RunningAverage(output_transform=float).attach(trainer, "average")
    Average(output_transform=float).attach(trainer, "epoch")
    ProgressBar(persist=True).attach(trainer, ["average"])
    moments = Events.STARTED | Events.ITERATION_COMPLETED(every=5) | Events.COMPLETED
    trainer.add_event_handler(moments, trial.evaluate)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, trial.note_metric, "average")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, trial.note_metric, "epoch")
    if resumed:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=SAVED), saver)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=SAVED), trainer.terminate, skip_completed=True)
    trial.run()


def fail_with(_: Engine, error: type[BaseException]) -> NoReturn:
    """Raise an error."""
    raise error


def run_failed(trial: Trial) -> None:
    """Raise in a handler after the step that it follows, go on, and be interrupted before a step."""
    trial.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=4), fail_with, ZeroDivisionError)
    trial.trainer.add_event_handler(Events.ITERATION_STARTED(once=9), fail_with, KeyboardInterrupt)
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with suppress(error):
            trial.run()
            raise AssertionError(f"{error} was swallowed")
        trial.run()  # trains nothing: the engine's generator has ended by the exception, and only this call notices


def run_swallowed(trial: Trial) -> None:
    """Have a handler of the user's swallow an exception: ignite then goes on with the next epoch."""
    trial.trainer.add_event_handler(Events.EXCEPTION_RAISED, lambda _: None)
    trial.trainer.add_event_handler(Events.ITERATION_STARTED(once=4), fail_with, ZeroDivisionError)
    trial.run()


def run_again(trial: Trial, folder: Path) -> None:
    """Train an epoch, another one, and one from the beginning."""
    trial.run(1)
    trial.run(2)
    trial.record.write()
    trial.record = RankRecord(folder / "over", dist.get_rank())
    trial.trainer.state.max_epochs = None
    trial.run(1)


def run_interrupted(trial: Trial) -> None:
    """Leave a run twice, evaluate, and come back to it."""
    trial.trainer.add_event_handler(Events.ITERATION_COMPLETED(every=SAVED), trial.trainer.interrupt)
    for _ in range(2):
        trial.run()
        trial.evaluate()
    trial.run()


def run_accumulated(trial: Trial, folder: Path) -> None:
    """Accumulate, with ignite's own WandBLogger on rank 0."""
    own = WandBLogger(mode="offline", dir=folder) if dist.get_rank() == 0 else None
    if own is not None:
        own.attach_output_handler(
            trial.trainer, Events.ITERATION_COMPLETED, tag="own", output_transform=lambda loss: {"loss": loss.item()}
        )
    trial.run()
    if own is not None:
        own.close()


def run_terminated(trial: Trial, folder: Path) -> None:
    """Get SIGTERM in a step."""
    begins = Events.ITERATION_STARTED(once=LAST + 1)
    trial.trainer.add_event_handler(begins, trial.record.write)
    trial.trainer.add_event_handler(begins, lambda: terminate(folder))
    trial.run()


def run_meter(case: Case, folder: Path) -> None:
    """Count the rows of tagged batches; the handler that saves them comes before all others."""
    consumed: list[list[Row]] = []
    for part in range(2 if case.resumed else 1):
        meter = SourceMeter(WEIGHTS)
        trainer = Engine(lambda _, batch: consumed.append(rows_of(batch["x"])))
        handler = OtelTrainHandler(meter=meter, **options(case, folder))
        to_save = {"trainer": trainer, "telemetry": handler}
        if part:
            Checkpoint.load_objects(to_save, folder / "checkpoint_0.pt")
        elif case.resumed:
            saver = Checkpoint(to_save, DiskSaver(folder, require_empty=False), global_step_transform=lambda *_: 0)
            trainer.add_event_handler(Events.ITERATION_COMPLETED(once=SAVED), saver)
            trainer.add_event_handler(Events.ITERATION_COMPLETED(once=SAVED), trainer.terminate)
        handler.attach(trainer)
        trainer.run(tagged_batches(meter, part), max_epochs=EPOCHS, epoch_length=EPOCH)
    write_consumed(folder, consumed)


def tagged_batches(meter: SourceMeter, seed: int) -> list[Any]:
    """Return an epoch of batches of eight rows."""
    choice = random.Random(10 * seed + dist.get_rank())
    tags = {source: meter.tag(source, tokens="tokens") for source in SOURCES}
    rows = (
        tags[source](sample(source, choice.randrange(200))) for source in choice.choices(SOURCES, [1, 3], k=8 * EPOCH)
    )
    return [default_collate(list(islice(rows, 8))) for _ in range(EPOCH)]


def run(case: Case, folder: Path) -> None:
    """Run a case."""
    if case.variant == "meter":
        run_meter(case, folder)
        return
    with RankRecord(folder, dist.get_rank()) as record:
        trial = Trial(case, folder, record)
        saver = Checkpoint(trial.to_save, DiskSaver(folder, require_empty=False), global_step_transform=lambda *_: 0)
        match case.variant:
            case "plain":
                run_plain(trial, saver, resumed=case.resumed)
                if case.resumed:
                    trial = Trial(case, folder, record)
                    Checkpoint.load_objects(trial.to_save, folder / "checkpoint_0.pt")
                    run_plain(trial, saver, resumed=False)
            case "accumulated":
                run_accumulated(trial, folder)
            case "failed":
                run_failed(trial)
            case "swallowed":
                run_swallowed(trial)
            case "again":
                (folder / "over").mkdir(exist_ok=True)
                run_again(trial, folder)
                trial.record.write()
            case "terminated":
                run_terminated(trial, folder)
            case "interrupted":
                run_interrupted(trial)


if __name__ == "__main__":
    call_cases(run)
