"""Fits whose ranks Lightning starts itself, by forking and by spawning, under the package's old name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from otel_train.integrations.lightning import OtelTrainCallback
from tests.support.patience import BOUNDS, have_nobody_send


class Model(pytorch_lightning.LightningModule):  # type: ignore[misc]  # its types are not there
    """A model that writes down the loss of each batch of its rank."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)
        self.folder = folder
        self.losses: list[tuple[float, int]] = []

    def train_dataloader(self) -> DataLoader[Any]:
        """Return other batches on each rank, and of another size."""
        size = 2 + self.global_rank
        generator = torch.Generator().manual_seed(self.global_rank)
        return DataLoader(TensorDataset(torch.randn(size * 6, 4, generator=generator)), size)

    def training_step(self, batch: Any, _index: int) -> torch.Tensor:
        """Return the loss, and note it."""
        loss: torch.Tensor = self.linear(batch[0]).square().mean()
        self.losses.append((loss.item(), len(batch[0])))
        return loss

    def on_train_end(self) -> None:
        """Write the losses."""
        (self.folder / f"rank{self.global_rank}.json").write_text(json.dumps(self.losses))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def main() -> None:
    """Fit by each of the strategies."""
    have_nobody_send()
    root, *strategies = sys.argv[1:]
    for strategy in strategies:
        folder = Path(root, strategy)
        callback = OtelTrainCallback(ring_dir=folder / "rings", max_in_flight=100, **BOUNDS)
        trainer = pytorch_lightning.Trainer(
            accelerator="cpu", devices=2, strategy=strategy, max_epochs=1, logger=False, callbacks=[callback],
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
            use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(Model(folder))


if __name__ == "__main__":
    main()
