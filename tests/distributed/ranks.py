"""Run by torchrun on four ranks: each rank runs every case and writes what came of each."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import otel_train
from otel_train.catalogue import Metric, Reduction
from otel_train.exceptions import OtelTrainError
from otel_train.mixing import MixingMeter

OUT = Path(sys.argv[1])


class Fails:
    """A source that fails on rank 1 at step 3."""

    metrics = (Metric("n", Reduction.SUM),)

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def drain_step_metrics(self, step: int | None = None) -> dict[str, Any]:
        """Return what this rank adds."""
        if self.rank == 1 and step == 3:
            raise OSError("gone")
        return {"n": self.rank}


def session(name: str, **options: Any) -> otel_train.Telemetry:
    """Return a session with short bounds."""
    return otel_train.init(ring_dir=OUT / name, reduction_timeout=5.0, close_timeout=0.5, **options)


def oldest_reader(rank: int) -> object:
    """At step 5 rank 2's reader was last picked in step 1, the others' in step 4."""
    meter = MixingMeter(1, ["a"], {"a": 1})
    meter.open(0, "a")
    for step in range(1, 5):
        if rank != 2 or step == 1:
            meter.pick(0)
        meter.end_step(step)
    values = otel_train.aggregate_step_metrics([meter], 5)
    return [values[f"stream_mixing/staleness_{name}"] for name in ("mean", "max", "max_rank")]


def missing_sum_key(rank: int) -> object:
    """Rank 1 lacks a key whose total is wanted."""
    return otel_train.reduce_loss_metrics({"x": 1.0, **({} if rank == 1 else {"n": 1.0})}, sum_keys=["n"])


def later_keys(rank: int) -> object:
    """Rank 1 gives another key at the second call."""
    otel_train.reduce_loss_metrics({"x": 1.0})
    return otel_train.reduce_loss_metrics({"x": 1.0, **({"y": 1.0} if rank == 1 else {})})


def later_sum(rank: int) -> object:
    """Rank 1 wants a total where the others want a mean, at the second call."""
    otel_train.reduce_loss_metrics({"x": 1.0})
    return otel_train.reduce_loss_metrics({"x": 1.0}, sum_keys=["x"] if rank == 1 else [])


def no_number(rank: int) -> object:
    """Rank 1 gives something that is no number, at a later call."""
    otel_train.reduce_loss_metrics({"x": 1.0})
    return otel_train.reduce_loss_metrics({"x": "high" if rank == 1 else 1.0})


def goes_on(rank: int) -> object:
    """After all those errors the ranks still meet."""
    return otel_train.reduce_loss_metrics({"x": float(rank)})


def failing_source(rank: int) -> object:
    """One rank's source fails in one step."""
    with session("fails", sources=[Fails(rank)], blocking=True) as telemetry:
        return [(telemetry.step(step) or {}).get("n") for step in range(1, 6)]


def short_flush(rank: int) -> object:
    """Rank 0 flushes while rank 1 is late."""
    with session("flush") as telemetry:
        telemetry.step(1, {"x": 1.0})
        time.sleep(0.4 * (rank == 1))
        telemetry.step(2, {"x": 2.0})
        telemetry.flush(0.02)
        dist.barrier()
        telemetry.step(3, {"x": 3.0})
        telemetry.flush(3.0)
        return telemetry.latest and [telemetry.latest[0], telemetry.latest[1]["x"]]


def mesh(rank: int) -> object:
    """A maximum over one dimension of a 2 x 2 mesh."""
    data = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))["data"]
    peak = Metric("peak", Reduction.MAX)
    with session("mesh", process_group=data, blocking=True, metrics=[peak]) as telemetry:
        values = telemetry.step(1, {"peak": float(rank)}) or {}
        return [values["peak"], values["peak_rank"]]


CASES = (
    oldest_reader,
    missing_sum_key,
    later_keys,
    later_sum,
    no_number,
    goes_on,
    failing_source,
    short_flush,
    mesh,
)


def main() -> None:
    """Run the cases; a rank that hangs is ended by the group's own bound."""
    dist.init_process_group("gloo", timeout=dt.timedelta(seconds=30))
    said: dict[str, object] = {}
    for case in CASES:
        try:
            said[case.__name__] = case(dist.get_rank())
        except OtelTrainError as error:
            said[case.__name__] = f"{type(error).__name__}: {error}"
        (OUT / f"rank{dist.get_rank()}.json").write_text(json.dumps(said))
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
