"""Log the loss of each source beside the whole: the tags of the loader's rows name the sources.

Run it on two ranks: torchrun --nproc-per-node 2 examples/loss_by_source.py
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, DistributedSampler

import otel_train

WEIGHTS = {"code": 1.0, "prose": 3.0}


class Rows(Dataset[dict[str, Any]]):
    """Rows of one source: numbers, and a target that is noisier in prose."""

    def __init__(self, source: str) -> None:
        self.noise, self.size = (2.0 if source == "prose" else 0.1), int(64 * WEIGHTS[source])

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> dict[str, Any]:
        values = torch.randn(8, generator=torch.Generator().manual_seed(row))
        return {"x": values[:4], "y": values[:4].sum() + self.noise * values[4]}


def main() -> None:
    """Train a line on rows of two sources."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    meter = otel_train.SourceMeter(WEIGHTS)
    dataset = ConcatDataset([otel_train.TaggedDataset(Rows(source), meter.tag(source)) for source in WEIGHTS])
    loader = DataLoader(dataset, batch_size=32, sampler=DistributedSampler(dataset))
    model = nn.parallel.DistributedDataParallel(nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with otel_train.init(sources=[meter], metrics=[otel_train.Scalar("train/loss", by="modality")]) as telemetry:
        batches = (batch for _ in range(5) for batch in meter.counted(loader))
        for step, batch in enumerate(batches, start=1):
            losses = (model(batch["x"]).squeeze(1) - batch["y"]) ** 2  # of each row
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
            telemetry.step(step, {"train/loss": losses})
        telemetry.flush()
        if telemetry.latest is not None and dist.get_rank() == 0:
            print({key: round(value, 3) for key, value in telemetry.latest[1].items() if key.startswith("train/loss")})
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
