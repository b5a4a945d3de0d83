"""Have accelerate's `log` record means over all processes, with gradient accumulation and an evaluation.

Run it on two ranks: ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 examples/trainers/accelerate_tracker.py
It needs what tests/integrations/requirements/torch.in names.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from otel_train.integrations.accelerate import OtelTrainTracker


def main() -> None:
    """Train a small model for twenty steps, and print the cluster's newest values."""
    tracker = OtelTrainTracker()
    accelerator = Accelerator(gradient_accumulation_steps=2, log_with=[tracker])
    accelerator.register_for_checkpointing(tracker)
    accelerator.init_trackers("example", config={"rate": 0.01})

    torch.manual_seed(0)
    inputs = torch.randn(320, 16)
    rows = TensorDataset(inputs, inputs.mean(1, keepdim=True))
    model = torch.nn.Linear(16, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(rows, batch_size=4, shuffle=True))

    step = 0
    for batch, target in loader:
        with accelerator.accumulate(model):
            loss = torch.nn.functional.mse_loss(model(batch), target)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        tracker.add({"train/loss": loss}, weight=len(batch))
        if accelerator.sync_gradients:
            step += 1
            accelerator.log({"train/scale": model.module.weight.detach().norm()}, step=step)

    session = tracker.tracker
    assert session is not None, "a value was logged"
    session.flush()
    if accelerator.is_main_process and session.latest is not None:
        newest, values = session.latest
        print(f"step {newest}: loss {values['train/loss']:.3f} over {values['train/ranks']:.0f} processes")
    accelerator.end_training()


if __name__ == "__main__":
    main()
