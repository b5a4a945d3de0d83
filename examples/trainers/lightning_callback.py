"""Record what Lightning's Trainer trains and evaluates, and the mix that it trains on.

Run it on two ranks, which Lightning starts itself: python examples/trainers/lightning_callback.py
It needs what tests/integrations/requirements/torch.in names.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, WeightedRandomSampler

import otel_train
from otel_train.integrations.lightning import OtelTrainCallback


class Model(lightning.LightningModule):  # type: ignore[misc]  # lightning is not there when types are checked
    """A model that logs as any other does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 1)

    def training_step(self, batch: dict[str, torch.Tensor], _index: int) -> torch.Tensor:
        """Return the loss, and log how far the outputs are spread."""
        outputs = self.linear(batch["x"])
        self.log("train/spread", outputs.std())
        loss: torch.Tensor = (outputs - 1).square().mean()
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], _index: int) -> None:
        """Log the loss of an evaluation."""
        self.log("val/loss", (self.linear(batch["x"]) - 1).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def main() -> None:
    """Train for twenty steps of two batches."""
    torch.manual_seed(0)
    meter = otel_train.SourceMeter({"code": 1, "prose": 3})
    tags = {source: meter.tag(source, tokens="length") for source in ("code", "prose")}
    rows: Any = [tags[source]({"x": torch.randn(16), "length": 16}) for source in tags for _ in range(100)]
    sampler = WeightedRandomSampler([1.0] * 100 + [3.0] * 100, 640)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=2, max_epochs=1, accumulate_grad_batches=2, val_check_interval=20, logger=False,
        use_distributed_sampler=False, enable_checkpointing=False, callbacks=[OtelTrainCallback(meter=meter)],
    )  # fmt: skip
    trainer.fit(Model(), DataLoader(rows, 16, sampler=sampler), DataLoader(rows[:32], 16))


if __name__ == "__main__":
    main()
