"""A rank whose scalars are DTensors: torchrun dtensor_ranks.py OUT."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor._ops._math_ops import _NormPartial

import otel_train
from otel_train.catalogue import Metric, Reduction

OUT = Path(sys.argv[1])
KINDS = {"whole": Replicate(), "sum": Partial(), "avg": Partial("avg"), "max": Partial("max"), "min": Partial("min")}
METRICS = [Metric("max", Reduction.MAX), Metric("min", Reduction.MIN), Metric("total", Reduction.SUM)]


def main() -> None:
    """Give one step of all kinds, a norm of FSDP2's, and kinds that one rank alone gives."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    mesh = init_device_mesh("cpu", (2,))
    values: dict[str, Any] = {
        name: DTensor.from_local(torch.tensor(10.0 + 2 * rank if name != "whole" else 5.0), mesh, [placement])
        for name, placement in KINDS.items()
    }
    values["total"] = values["sum"]
    values["shard"] = DTensor.from_local(
        torch.full((1 - rank,), 7.0), mesh, [Shard(0)], shape=torch.Size([1]), stride=(1,)
    )
    values["product"] = DTensor.from_local(torch.tensor(3.0), mesh, [Partial("product")])
    values["norm"] = DTensor.from_local(torch.tensor(3.0 + rank), mesh, [_NormPartial(2)])
    model = torch.nn.Linear(4, 4, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    fully_shard(model, mesh=mesh)
    model(torch.ones(1, 4)).sum().backward()
    values["clipped"] = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    options: dict[str, Any] = {"metrics": METRICS, "blocking": True, "close_timeout": 0.3}
    with otel_train.init(ring_dir=OUT / "rings", **options) as telemetry:
        first = telemetry.step(1, values) or {}
        # A collective of ours for these would wait for the other rank, which has none.
        alone = telemetry.step(2, {"sum": values["sum"], "norm": values["norm"]} if rank else {"sum": None}) or {}
    lone = [dist.new_group([each]) for each in range(2)][rank]
    options |= {"process_group": lone, "run_id": "lone"}
    with otel_train.init(ring_dir=OUT / f"lone{rank}", **options) as telemetry:
        elsewhere = telemetry.step(1, {"sum": values["sum"], "whole": values["whole"]}) or {}
    losses = otel_train.reduce_loss_metrics({key: values[key] for key in ("sum", "whole", "norm", "clipped")})
    said = {
        "first": first,
        "alone": sorted(alone.keys() & values.keys()),
        "losses": losses,
        "lone": sorted(elsewhere.keys() & values.keys()),
    }
    (OUT / f"rank{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
