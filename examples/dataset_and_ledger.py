"""Mix streams with StreamMixingDataset, and carry a state for each stream in a StateLedger.

Run it on two ranks: torchrun --nproc-per-node 2 examples/dataset_and_ledger.py
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

import otel_train


@dataclass
class Sequence:
    """A stream whose rows must be read in order: here 16 numbers in each of 20 rows."""

    id: str
    modality: str

    def __len__(self) -> int:
        return 20

    def read(self, position: int) -> tuple[dict[str, torch.Tensor], int]:
        """Return a row, and the number of its tokens."""
        return {"tokens": torch.arange(16.0) + 16 * position}, 16


def main() -> None:
    """Go through the rows with the state of the row before, and print the cluster's newest values."""
    dist.init_process_group("gloo")
    streams = [Sequence(f"{modality}-{number}", modality) for modality in ("code", "prose") for number in range(8)]
    # Both are made after the ranks have met: each reads and owns its own part.
    dataset = otel_train.StreamMixingDataset(streams, {"code": 1, "prose": 3}, readers=4, batch_size=8)
    ledger = otel_train.StateLedger([16], capacity=16)
    loader = DataLoader(dataset, batch_size=8, num_workers=2)

    with otel_train.init(sources=[dataset, ledger]) as telemetry:
        for step, batch in enumerate(telemetry.timed(loader), start=1):
            states, found = ledger.fetch(batch["stream"])
            states = states.lerp(batch["tokens"], 0.1)  # what a recurrent model would do
            ledger.store(batch["stream"], states)
            telemetry.step(step, {"state/held": found.float().mean(), "state/norm": states.norm()})
            if step == 30:
                break
        telemetry.flush()
        if dist.get_rank() == 0 and telemetry.latest is not None:
            newest, values = telemetry.latest
            print(f"step {newest}: mix divergence {values['stream_mixing/mix_divergence']:.3f},")
            print(f"{values['ledger/evictions']:.0f} evictions, {values['state/held']:.0%} of the states were there")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
