"""Run by torchrun on four ranks: a job that is saved and goes on with 4, 2, 3, 1 and 4 ranks, in one run."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

import otel_train
from otel_train.ledger import StateLedger
from otel_train.mixing import StreamMixingDataset
from otel_train.trainer.checkpoint import Checkpoints, Parts
from tests.support.meeting import gloo_ranks

WORLD_SIZES = (4, 2, 3, 1, 4)
ROWS = (3, 2, 4, 3, 2)
"""Rows of a batch in each attempt, which is configured in another way than the one before."""
READERS = (3, 4, 2, 5, 3)
STEPS, STREAMS, LENGTH = 6, 22, 4


@dataclass(frozen=True)
class Numbers:
    """A stream of a few numbers."""

    id: str
    modality: str

    def __len__(self) -> int:
        return LENGTH

    def read(self, position: int) -> tuple[dict[str, Any], int]:
        """Return a row of one token."""
        return {"number": position}, 1


def train(attempt: int, rank: int, out: Path) -> None:
    """Go on where the last attempt was saved, make some steps, save, and write what was seen."""
    streams = [Numbers(f"{'ab'[number % 2]}{number}", "ab"[number % 2]) for number in range(STREAMS)]
    batch_size = ROWS[attempt]
    dataset = StreamMixingDataset(
        streams, {"a": 1, "b": attempt + 1}, readers=READERS[attempt], batch_size=batch_size, seed=5
    )
    # The state of a stream is its number and how many of its rows were seen; one rank can hold them all.
    ledger = StateLedger((2,), capacity=STREAMS, dtype=torch.float64)
    model = torch.nn.Linear(2, 1)
    telemetry = otel_train.init(sources=[dataset, ledger], ring_dir=out / "rings", blocking=True, close_timeout=0.1)
    parts = Parts(
        model=model, optimizer=torch.optim.Adam(model.parameters()), dataset=dataset, ledger=ledger, telemetry=telemetry
    )
    checkpoints = Checkpoints(out / "checkpoints", keep=1)
    saved = checkpoints.load(parts)
    rows, picks = [], []
    for step, batch in enumerate(DataLoader(dataset, batch_size=batch_size), start=saved + 1):
        seen: dict[str, list[int]] = {}
        for stream, position in zip(batch["stream"], batch["position"].tolist(), strict=True):
            seen.setdefault(stream, []).append(position)
        states, found = ledger.fetch(list(seen))
        rows += [
            [step, stream, seen[stream], known, state]
            for stream, known, state in zip(seen, found.tolist(), states.tolist(), strict=True)
        ]
        numbers = torch.tensor([float(stream[1:]) for stream in seen])
        counts = states[:, 1] + torch.tensor([len(positions) for positions in seen.values()])
        ledger.store(list(seen), torch.stack([numbers, counts], dim=1).to(ledger.dtype))
        values = telemetry.step(step) or {}
        picks.append([step, values[dataset.metrics[0].wandb_key]])
        if step == saved + STEPS:
            break
    checkpoints.save(saved + STEPS, parts)
    telemetry.close()
    (out / f"attempt{attempt}-rank{rank}.json").write_text(json.dumps({"rows": rows, "picks": picks}))


def main() -> None:
    """Be a rank of each job that is large enough for it."""
    me, out = int(os.environ["RANK"]), Path(sys.argv[1])
    logging.basicConfig(level=logging.INFO, filename=out / f"log{me}.txt")
    for attempt, world_size in enumerate(WORLD_SIZES):
        if me < world_size:
            with gloo_ranks(out / f"meeting{attempt}", me, world_size):
                train(attempt, me, out)


if __name__ == "__main__":
    main()
