"""Measure the mix of mosaicml-streaming's streams, by the proportions that they have.

Run it on two ranks: torchrun --nproc-per-node 2 examples/loaders/mosaic_streams.py
It needs what tests/integrations/requirements/mosaic.in names.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch.distributed as dist
from streaming import MDSWriter, Stream, StreamingDataLoader, StreamingDataset

import otel_train
from otel_train.integrations import mosaic

PROPORTIONS = {"code": 0.25, "prose": 0.75}


def write(folder: Path) -> None:
    """Write a stream for each source."""
    for source in PROPORTIONS:
        with MDSWriter(out=str(folder / source), columns={"length": "int"}) as writer:
            for row in range(500):
                writer.write({"length": 10 + row % 7})


def main() -> None:
    """Read fifty batches, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    folder = [tempfile.mkdtemp()]
    dist.broadcast_object_list(folder)
    if dist.get_rank() == 0:
        write(Path(folder[0]))
    dist.barrier()
    streams = [Stream(local=f"{folder[0]}/{source}", proportion=share) for source, share in PROPORTIONS.items()]
    dataset = StreamingDataset(streams=streams, batch_size=8, shuffle=True, batching_method="stratified")

    meter, dataset = mosaic.track(dataset, tokens="length")  # named by their folders
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
