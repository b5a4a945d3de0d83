"""Measure the mix of litdata's combined datasets, by the weights that they have.

Run it on two ranks: torchrun --nproc-per-node 2 examples/loaders/litdata_combined.py
It needs what tests/integrations/requirements/streams.in names.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch.distributed as dist
from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset
from litdata.streaming import Cache

import otel_train
from otel_train.integrations import litdata

WEIGHTS = {"code": 1, "prose": 3}


def write(folder: Path) -> None:
    """Write a dataset for each source, each rank its part, as `litdata.optimize` does with many workers."""
    for source in WEIGHTS:
        cache = Cache(str(folder / source), chunk_size=50)
        for row in range(600):
            cache[row] = {"length": 10 + row % 7}
        cache.done()
        cache.merge()


def main() -> None:
    """Read fifty batches, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    folder = [tempfile.mkdtemp()]
    dist.broadcast_object_list(folder)
    write(Path(folder[0]))
    dist.barrier()
    datasets = [StreamingDataset(f"{folder[0]}/{source}", shuffle=True) for source in WEIGHTS]
    seed = dist.get_rank()  # with one seed all ranks would draw alike
    dataset = CombinedStreamingDataset(datasets, seed, weights=list(WEIGHTS.values()), iterate_over_all=False)

    meter, dataset = litdata.track(dataset, tokens="length")  # named by their folders
    loader = StreamingDataLoader(dataset, batch_size=8, num_workers=2)

    with otel_train.init(sources=[meter]) as telemetry:
        for step, batch in enumerate(telemetry.timed(meter.counted(loader)), start=1):
            telemetry.step(step, {"train/mean_length": batch["length"].float().mean()})
            if step == 50:
                break
        telemetry.flush()
        if dist.get_rank() == 0 and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: {values['stream_mixing/modality_share/prose']:.3f} of the picks are prose")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
