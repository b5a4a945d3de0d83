"""Run by torchrun on four ranks: telemetry over one dimension of a 2 x 2 mesh, and two sessions at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import otel_train
from otel_train.mixing import MixingMeter


def meter() -> MixingMeter:
    """Return a meter with one open slot."""
    made = MixingMeter(1, ["code"], {"code": 1.0})
    made.open(0, "code")
    return made


def main() -> None:
    """Step both sessions and write what this rank was told."""
    dist.init_process_group("gloo")
    rank, out = dist.get_rank(), Path(sys.argv[1])
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    train, evaluation = meter(), meter()
    with (
        otel_train.init(sources=[train], process_group=mesh["data"], ring_dir=out / "mesh", blocking=True) as data,
        otel_train.init(sources=[evaluation], ring_dir=out / "all", blocking=True) as everybody,
    ):
        said = []
        for step in (1, 2):
            # Tensor-parallel peers see the same data: the same picks on ranks 0 and 1, and on 2 and 3.
            train.pick(0, rows=10 ** (rank // 2))
            evaluation.pick(0, rows=10**rank)
            of_data = data.step(step, {"loss": float(rank // 2)}) or {}
            of_all = everybody.step(step) or {}
            key = train.metrics[0].wandb_key
            said.append([of_data[key], of_data["loss"], of_all[key]])
    (out / f"rank{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
