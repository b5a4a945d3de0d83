"""Save a job every 10 steps, and go on from there with any number of ranks.

Run it twice: torchrun --nproc-per-node 2 examples/resume.py FOLDER, then with --nproc-per-node 3
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import otel_train
from otel_train.mixing import FileStream


def save(folder: Path, step: int, parts: dict[str, Any]) -> None:
    """Write this rank's states; the folder gets its name when those of all ranks are there."""
    (partial := folder / "partial").mkdir(parents=True, exist_ok=True)
    torch.save({name: part.state_dict() for name, part in parts.items()}, partial / f"rank-{dist.get_rank():05}.pt")
    dist.barrier()
    if dist.get_rank() == 0:
        partial.rename(folder / f"step-{step:08}")


def load(saved: Path, parts: dict[str, Any]) -> None:
    """Go on from the states of all ranks of the job that saved them: each stream and state finds its new owner."""
    states = [torch.load(path) for path in sorted(saved.glob("rank-*.pt"))]
    parts["dataset"].load_state_dict([state["dataset"] for state in states])
    parts["ledger"].load_state_dict([state["ledger"] for state in states])
    parts["telemetry"].load_state_dict(states[0]["telemetry"])  # the run's id: the curves go on


def main(folder: Path) -> None:
    """Make 20 steps more than there are."""
    dist.init_process_group("gloo")
    paths = sorted(Path(otel_train.__path__[0]).glob("*.py"))
    streams = [FileStream(path.name, "code", str(path), chunk=32) for path in paths]
    dataset = otel_train.StreamMixingDataset(streams, {"code": 1}, readers=4, batch_size=1)
    ledger = otel_train.StateLedger([8], capacity=32)
    with otel_train.init(sources=[dataset, ledger]) as telemetry:
        parts = {"dataset": dataset, "ledger": ledger, "telemetry": telemetry}
        first = 1
        for saved in sorted(folder.glob("step-*"))[-1:]:
            load(saved, parts)
            first += int(saved.name.removeprefix("step-"))
        for step, row in zip(range(first, first + 20), dataset, strict=False):
            states, found = ledger.fetch([row["stream"]])
            ledger.store([row["stream"]], states + 1)
            telemetry.step(step, {"state/held": found})
            if step % 10 == 0:
                save(folder, step, parts)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
