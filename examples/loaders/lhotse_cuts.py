"""Measure a mix of lhotse's cuts: a sampler that deals batches to the ranks, and a dataset that makes them.

Run it on two ranks: torchrun --nproc-per-node 2 examples/loaders/lhotse_cuts.py
It needs what tests/integrations/requirements/iters.in names.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from lhotse import CutSet, MonoCut
from lhotse.dataset import DynamicCutSampler
from torch.utils.data import DataLoader, Dataset

import otel_train
from otel_train.integrations import lhotse

WEIGHTS = {"read": 1.0, "talk": 3.0}


class Durations(Dataset[Any]):
    """Makes a batch of cuts."""

    def __getitem__(self, cuts: CutSet) -> torch.Tensor:
        return torch.tensor([cut.duration for cut in cuts])


def main() -> None:
    """Read fifty batches, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    cuts = {
        source: CutSet([MonoCut(f"{source}-{n}", start=0, duration=1 + n % 9, channel=0) for n in range(200)]).repeat()
        for source in WEIGHTS
    }

    meter, mix = lhotse.track(cuts, WEIGHTS, tokens=lambda cut: int(100 * cut.duration))  # instead of CutSet.mux
    sampler = DynamicCutSampler(mix, max_cuts=8)
    loader = DataLoader(lhotse.WithTags(Durations()), sampler=sampler, batch_size=None)

    with otel_train.init(sources=[meter]) as telemetry:
        for step, batch in enumerate(telemetry.timed(meter.counted(loader)), start=1):
            telemetry.step(step, {"train/mean_duration": batch.float().mean()})
            if step == 50:
                break
        telemetry.flush()
        if dist.get_rank() == 0 and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: {values['stream_mixing/modality_share/talk']:.3f} of the picks are talk")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
