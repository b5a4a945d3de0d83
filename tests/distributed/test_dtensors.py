"""Scalars that are DTensors, over two real ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import otel_train
from otel_train.catalogue import Metric, Reduction
from tests.support.on_ranks import Job


@pytest.mark.ranks(2)
def test_dtensors_reduce_to_whole(job: Job) -> None:
    """Without a collective of its own: sums, means, extremes, shards, and the norm that FSDP2's clipping gives."""
    # Not at the top: they load the compiler.
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
    from torch.distributed.tensor._ops._math_ops import _NormPartial

    rank, mesh, part = job.rank, init_device_mesh("cpu", (2,)), torch.tensor(10.0 + 2 * job.rank)
    kinds = {"sum": Partial(), "avg": Partial("avg"), "max": Partial("max"), "min": Partial("min")}
    values: dict[str, Any] = {key: DTensor.from_local(part, mesh, [kind]) for key, kind in kinds.items()}
    values["whole"] = DTensor.from_local(torch.tensor(5.0), mesh, [Replicate()])
    values["total"] = values["sum"]
    shard = torch.full((1 - rank,), 7.0)
    values["shard"] = DTensor.from_local(shard, mesh, [Shard(0)], shape=torch.Size([1]), stride=(1,))
    values["product"] = DTensor.from_local(torch.tensor(3.0), mesh, [Partial("product")])
    values["norm"] = DTensor.from_local(torch.tensor(3.0 + rank), mesh, [_NormPartial(2)])
    model = torch.nn.Linear(4, 4, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    fully_shard(model, mesh=mesh)
    model(torch.ones(1, 4)).sum().backward()
    values["clipped"] = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    metrics = [Metric("max", Reduction.MAX), Metric("min", Reduction.MIN), Metric("total", Reduction.SUM)]
    with job.session(metrics=metrics, blocking=True) as telemetry:
        first = telemetry.step(1, values) or {}
        # A collective of ours for these would wait for the other rank, which has none.
        telemetry.step(2, {"sum": values["sum"], "norm": values["norm"]} if rank else {"sum": None})
    expected = {"whole": 5.0, "sum": 22.0, "avg": 11.0, "max": 12.0, "min": 10.0, "total": 22.0, "shard": 7.0}
    expected |= {"norm": 5.0, "clipped": 4.0}
    assert {key: first[key] for key in expected} == pytest.approx(expected)
    assert "product" not in first
    losses = otel_train.reduce_loss_metrics({key: values[key] for key in ("sum", "whole", "norm", "clipped")})
    assert losses == pytest.approx({"sum": 22.0, "whole": 5.0, "norm": 5.0, "clipped": 4.0})
    # A session that reduces over one rank only has one part of the sum.
    alone = [dist.new_group([one]) for one in range(2)][rank]
    options = {"process_group": alone, "run_id": "alone", "metrics": metrics, "blocking": True}
    with job.session(f"alone{rank}", **options) as telemetry:
        elsewhere = telemetry.step(1, {"sum": values["sum"], "whole": values["whole"]}) or {}
    assert elsewhere.keys() & values.keys() == {"whole"}
    for text in ("'product' is dropped: it is a DTensor of parts", "'sum' is dropped: it is a DTensor with parts on"):
        assert sum(f"telemetry: {text}" in warning for warning in job.warnings) == 1
