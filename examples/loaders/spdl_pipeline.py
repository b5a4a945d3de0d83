"""Measure what SPDL's pipeline makes of merged sources, with threads that decode.

Run it on two ranks: torchrun --nproc-per-node 2 examples/loaders/spdl_pipeline.py
It needs what tests/integrations/requirements/iters.in names.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from spdl.pipeline import PipelineBuilder
from spdl.source.utils import repeat_source

import otel_train
from otel_train.integrations import spdl

WEIGHTS = {"code": 1.0, "prose": 3.0}


def decode(length: int) -> torch.Tensor:
    """Return the tokens of an item, which is their number here and a path elsewhere."""
    return torch.arange(16) % length


def main() -> None:
    """Read fifty batches, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    sources = {source: repeat_source([4, 8, 16]) for source in WEIGHTS}

    meter, merged = spdl.track(sources, WEIGHTS, tokens=lambda length: length, seed=dist.get_rank())  # MergeIterator
    builder = PipelineBuilder().add_source(merged).pipe(spdl.carry(decode), concurrency=2)
    pipeline = builder.aggregate(8).pipe(otel_train.Collate(torch.stack)).add_sink(4).build(num_threads=2)

    with pipeline.auto_stop(), otel_train.init(sources=[meter]) as telemetry:
        for step, batch in enumerate(telemetry.timed(meter.counted(pipeline)), start=1):
            telemetry.step(step, {"train/mean_id": batch.float().mean()})
            if step == 50:
                break
        telemetry.flush()
        if dist.get_rank() == 0 and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: {values['stream_mixing/modality_share/prose']:.3f} of the picks are prose")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
