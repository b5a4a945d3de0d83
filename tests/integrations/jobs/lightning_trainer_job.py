"""Fits of Lightning's Trainer with our callback, each rank of which writes down what it has logged itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed as dist
import torchmetrics
from lightning.pytorch.callbacks import Callback, EarlyStopping, GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

import otel_train
from otel_train.integrations.lightning import OtelTrainCallback
from tests.integrations.support.case_loop import SAVED_AFTER, STEPS, Row, write_consumed
from tests.integrations.support.payload import WEIGHTS, rows_of, sample
from tests.support.patience import BOUNDS, have_nobody_send

BATCHES = 10
"""Training batches of an epoch, the last of which has a row less."""


class Model(lightning.LightningModule):  # type: ignore[misc]  # its types are not there
    """A model that notes each value that it logs, with what it counts, and each step of its optimizer."""

    def __init__(self, events: list[Any], fail: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)
        self.metric = torchmetrics.MeanMetric()
        self.events = events
        self.fail = fail
        self.stepped = False

    def loss(self, batch: Any) -> torch.Tensor:
        """Return the mean over the rows of a batch."""
        loss: torch.Tensor = self.linear(batch[0]).square().mean()
        return loss

    def note(self, name: str, value: Any, rows: int, **options: Any) -> None:
        """Log a value and write it down, with its kind: "step", "epoch" or "evaluation"."""
        kind = options.pop("kind", "step")
        self.events.append([kind, name, float(value), rows])
        self.log(options.pop("logged", name), value, **options)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        """Log in each way that there is."""
        loss, rows = self.loss(batch), len(batch[0])
        if self.fail is not None:
            self.fail(index)
        self.events.append(["step", "train/loss", loss.item(), rows])
        self.note("plain", loss * 2, rows)
        self.note("counted", loss * 3, rows + self.global_rank + 1, batch_size=rows + self.global_rank + 1)
        self.events.append(["epoch", "both_epoch", loss.item() * 4, rows])
        self.note("both_step", loss * 4, rows, logged="both", on_step=True, on_epoch=True)
        self.note("epoch", loss * 5, rows, kind="epoch", on_step=False, on_epoch=True)
        self.note("synced", loss * 6, rows, sync_dist=True, reduce_fx="sum")
        self.note("last", loss * 7, rows, kind="hidden", prog_bar=True, logger=False)
        if index % 3 == 1:
            self.note("some", loss * 8, rows)
        if self.global_rank == 1:
            self.note("lone", loss * 9, rows)
        return loss

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Note a step."""
        super().optimizer_step(*arguments, **options)
        self.stepped = True

    def on_train_batch_end(self, _outputs: Any, batch: Any, _index: int) -> None:
        """Log after the callbacks have had their turn."""
        self.note("late", float(len(batch[0])), len(batch[0]))
        if self.stepped:
            self.events.append(["ends"])
        self.stepped = False

    def on_train_epoch_end(self) -> None:
        """Log a value of the epoch."""
        self.note("ending", float(self.current_epoch), 1, kind="epoch")
        self.events.append(["epoch ends"])

    def validation_step(self, batch: Any, _index: int, dataloader_idx: int = 0) -> None:
        """Log values of an evaluation."""
        if self.trainer.sanity_checking:
            self.log("val/loss", self.loss(batch))
            return
        loss = self.loss(batch)
        self.note(
            f"val/loss/dataloader_idx_{dataloader_idx}", loss, len(batch[0]), kind="evaluation", logged="val/loss"
        )

    def on_validation_epoch_end(self) -> None:
        """Log a metric that reduces itself."""
        if not self.trainer.sanity_checking:
            self.metric.update(float(self.global_rank))
            self.log("val/metric", self.metric)
            self.events += [["evaluation", "val/metric", float(self.global_rank), 1], ["evaluated"]]

    def test_step(self, batch: Any, _index: int) -> None:  # noqa: PT019  # Lightning's test
        """Log values of a test."""
        self.note("test/loss", self.loss(batch), len(batch[0]), kind="evaluation")

    def on_test_epoch_end(self) -> None:
        """Note the end of a test."""
        self.events.append(["evaluated"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


class ManualModel(Model):
    """A model with two optimizers, of which one steps in each batch and one in each third; no step in the first two."""

    def __init__(self, events: list[Any]) -> None:
        super().__init__(events)
        self.automatic_optimization = False
        self.other = torch.nn.Linear(4, 1)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        """Optimize by hand."""
        loss: torch.Tensor = super().training_step(batch, index) + 0 * self.other(batch[0]).mean()
        if index >= 2:
            self.manual_backward(loss)
            for optimizer in self.optimizers()[: 2 if index % 3 else 1]:
                optimizer.step()
                optimizer.zero_grad()
            self.stepped = True
        return loss

    def configure_optimizers(self) -> Any:
        """Return the optimizers."""
        return [torch.optim.SGD(part.parameters(), lr=0.01) for part in (self.linear, self.other)]


def loader(seed: int, rows: int, batches: int = BATCHES) -> DataLoader[Any]:
    """Return other batches on each rank, and of another size."""
    generator = torch.Generator().manual_seed(seed + 100 * dist.get_rank())
    size = rows + 2 * dist.get_rank()
    return DataLoader(TensorDataset(torch.randn(size * batches - 1, 4, generator=generator)), size)


class Fits:
    """Fits of a case, whose events go into one file for each rank."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Any] = []

    def callback(self) -> OtelTrainCallback:
        """Return a callback whose rings are in the case's folder."""
        return OtelTrainCallback(ring_dir=self.folder / "rings", max_in_flight=100, **BOUNDS)

    def trainer(self, *callbacks: Callback, **options: Any) -> lightning.Trainer:
        """Return a trainer of two ranks on this machine."""
        return lightning.Trainer(
            **{
                "accelerator": "cpu", "devices": 2, "strategy": "ddp", "logger": False, "max_epochs": 2,
                "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False,
                "use_distributed_sampler": False, "default_root_dir": str(self.folder), "callbacks": list(callbacks),
                **options,
            }
        )  # fmt: skip

    def fit(self, trainer: lightning.Trainer, model: Model, **options: Any) -> None:
        """Fit with an evaluation of two loaders in the middle of each epoch and at its end."""
        trainer.fit(model, loader(1, 3), [loader(2, 4, 3), loader(3, 2, 2)], **options)
        self.events.append(["end"])

    def write(self) -> None:
        """Write the events of this rank."""
        (self.folder / f"rank{dist.get_rank()}.json").write_text(json.dumps(self.events))


def plain(fits: Fits) -> None:
    """Fit, validate and test."""
    trainer = fits.trainer(fits.callback(), val_check_interval=0.5)
    model = Model(fits.events)
    fits.fit(trainer, model)
    trainer.validate(model, [loader(2, 4, 3), loader(3, 2, 2)], verbose=False)
    fits.events.append(["end"])
    trainer.test(model, loader(4, 2, 2), verbose=False)
    fits.events.append(["end"])


def accumulated(fits: Fits) -> None:
    """Accumulate four batches, then three, with Lightning's own WandbLogger beside the callback."""
    scheduler = GradientAccumulationScheduler({0: 4, 1: 3})
    own = WandbLogger(save_dir=fits.folder, offline=True)
    fits.fit(fits.trainer(fits.callback(), scheduler, logger=own, log_every_n_steps=1), Model(fits.events))
    own.experiment.finish()


def manual(fits: Fits) -> None:
    """Optimize by hand, with two optimizers."""
    fits.fit(fits.trainer(fits.callback()), ManualModel(fits.events))


def resumed(fits: Fits) -> None:
    """Go on from a checkpoint in the middle of an epoch, by two optimizers: steps differ from the optimizers' calls."""
    checkpoint = ModelCheckpoint(fits.folder, filename="middle", every_n_train_steps=8, save_top_k=1, monitor=None)
    fits.fit(
        fits.trainer(fits.callback(), checkpoint, enable_checkpointing=True, max_steps=8), ManualModel(fits.events)
    )
    fits.fit(fits.trainer(fits.callback()), ManualModel(fits.events), ckpt_path=checkpoint.best_model_path)


def twice(fits: Fits) -> None:
    """Stop early, go on with the same trainer, and start over with another one and the same callback."""
    callback, model = fits.callback(), Model(fits.events)
    stopping = EarlyStopping("late", patience=1, check_on_train_epoch_end=True)
    trainer = fits.trainer(callback, stopping, max_epochs=9)
    fits.fit(trainer, model)
    trainer.callbacks.remove(stopping)
    trainer.should_stop = False
    trainer.fit_loop.max_epochs = trainer.current_epoch + 1
    fits.fit(trainer, model)
    fits.fit(fits.trainer(callback, max_epochs=1), Model(fits.events))


def failing(fits: Fits) -> None:
    """End in the middle of a step by an exception, an interrupt and SIGTERM, and fit again each time."""
    callback = fits.callback()
    for error in (ValueError, KeyboardInterrupt, SystemExit):

        def fail(index: int, error: type[BaseException] = error) -> None:
            if index == 5:
                if error is not SystemExit:
                    raise error
                os.kill(os.getpid(), signal.SIGTERM)

        with contextlib.suppress(ValueError, SystemExit):
            fits.trainer(callback, accumulate_grad_batches=2).fit(Model(fits.events, fail), loader(1, 3))
        fits.events.append(["end"])
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores it from then on


class MixedModel(lightning.LightningModule):  # type: ignore[misc]  # as above
    """A model that notes the rows that it is trained on, and the loss of each, step by step."""

    def __init__(self, steps: list[list[Row]], losses: list[list[float]]) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 1)
        self.steps, self.losses = steps, losses
        self.made: list[Row] = []
        self.made_losses: list[float] = []

    def training_step(self, batch: Any, _index: int) -> dict[str, torch.Tensor]:
        """Note the rows of a batch, which has no tag any more."""
        assert set(batch) == {"x", "tokens"}
        losses = self.linear(batch["x"].float()).square().squeeze(1)
        self.made += rows_of(batch["x"])
        self.made_losses += losses.tolist()
        return {"loss": losses.mean(), "train/loss": losses}

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Note a step."""
        super().optimizer_step(*arguments, **options)
        self.steps.append(self.made)
        self.losses.append(self.made_losses)
        self.made, self.made_losses = [], []

    def validation_step(self, batch: Any, _index: int) -> None:
        """Evaluate rows, which must not count."""
        self.log("val/loss", self.linear(batch["x"].float()).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=1e-9)


def metered(fits: Fits) -> None:
    """Count the sources of tagged rows, straight and from a checkpoint that has the meter of each rank."""
    steps: list[list[Row]] = []
    losses: list[list[float]] = []
    by_source = [otel_train.Scalar("train/loss", by="modality")]
    for last in (SAVED_AFTER, STEPS):
        meter = otel_train.SourceMeter(WEIGHTS)
        tags = {source: meter.tag(source, tokens="tokens") for source in WEIGHTS}
        rows: Any = [tags[source](sample(source, key)) for key in range(200) for source in WEIGHTS]
        generator = torch.Generator().manual_seed(last + dist.get_rank())
        sampler = WeightedRandomSampler([*WEIGHTS.values()] * 200, 1600, generator=generator)
        options: Any = {"ring_dir": fits.folder / "rings", "max_in_flight": 100, **BOUNDS}
        callback = OtelTrainCallback(meter=meter, metrics=by_source, **options)
        trainer = fits.trainer(callback, max_steps=last, max_epochs=-1, accumulate_grad_batches=2, val_check_interval=9)
        saved = fits.folder / "saved.ckpt"
        training, evaluation = DataLoader[Any](rows, 8, sampler=sampler), DataLoader[Any](rows[:16], 8)
        trainer.fit(MixedModel(steps, losses), training, evaluation, ckpt_path=saved if last == STEPS else None)
        trainer.save_checkpoint(saved)
    write_consumed(fits.folder, steps)
    (fits.folder / f"losses{dist.get_rank()}.json").write_text(json.dumps(losses))


CASES = {case.__name__: case for case in (plain, accumulated, manual, resumed, twice, failing, metered)}


def main() -> None:
    """Run the cases that the test asks for."""
    folder, *names = map(str, sys.argv[1:])
    have_nobody_send()
    dist.init_process_group("gloo")
    for name in names:
        fits = Fits(Path(folder, name))
        torch.manual_seed(7)
        CASES[name](fits)
        if fits.events:
            fits.write()
        dist.barrier()


if __name__ == "__main__":
    main()
