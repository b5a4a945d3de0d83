"""Record an ignite trainer, with its evaluator.

Run it on two ranks: torchrun --nproc-per-node 2 examples/trainers/ignite_engine.py
ignite's own launcher does it too: python examples/trainers/ignite_engine.py 2
It needs what tests/integrations/requirements/torch.in names.
"""

from __future__ import annotations

import sys
import tempfile

import ignite.distributed as idist
import torch
from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from ignite.metrics import Loss
from torch.utils.data import DataLoader, TensorDataset

from otel_train.integrations.ignite import OtelTrainHandler

EPOCHS = 3


def train(_local_rank: int, folder: str) -> None:
    """Train and evaluate on this rank."""
    inputs = torch.randn(320, 4, generator=torch.Generator().manual_seed(idist.get_rank()))
    data = TensorDataset(inputs, inputs.sum(1, keepdim=True))
    model = idist.auto_model(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loss = torch.nn.functional.mse_loss
    trainer = create_supervised_trainer(
        model, optimizer, loss, output_transform=lambda _x, _y, _prediction, loss: loss.detach()
    )
    evaluator = create_supervised_evaluator(model, {"loss": Loss(loss)})
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(DataLoader(data, 64)))

    handler = OtelTrainHandler().attach(trainer, evaluators={"val": evaluator})
    # A job that loads this checkpoint goes on in the same run.
    to_save = {"trainer": trainer, "model": model, "optimizer": optimizer, "telemetry": handler}
    trainer.add_event_handler(Events.EPOCH_COMPLETED, Checkpoint(to_save, DiskSaver(folder, require_empty=False)))
    trainer.run(DataLoader(data, 32), max_epochs=EPOCHS)


def main() -> None:
    """Train on torchrun's ranks, or on as many as the command line says."""
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as folder, idist.Parallel("gloo", nproc_per_node=processes) as parallel:
        parallel.run(train, folder)


if __name__ == "__main__":
    main()
