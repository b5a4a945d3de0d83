"""Run by torchrun on four ranks: each rank runs every case and writes what came of each."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.profiler import ProfilerActivity, profile

import otel_train
from otel_train.catalogue import Metric, Reduction
from otel_train.exceptions import OtelTrainError
from otel_train.mixing import MixingMeter
from otel_train.step.environment import Environment
from otel_train.step.identity_agreement import agree_identity
from otel_train.step.rank_group import RankGroup
from otel_train.step.sidecar_process import wait_until

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
    return otel_train.init(ring_dir=OUT / name, reduction_timeout=5.0, close_timeout=0.1, **options)


def data_mesh() -> DeviceMesh:
    """Return the data dimension of a 2 x 2 mesh: ranks 0 and 2, and ranks 1 and 3."""
    return init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))["data"]


def subgroup(*ranks: int) -> dist.ProcessGroup | None:
    """Return a group of those ranks; None on the others, which take part in making it."""
    made = dist.new_group(list(ranks))
    return made if isinstance(made, dist.ProcessGroup) else None


def meter() -> MixingMeter:
    """Return a meter with one open slot."""
    made = MixingMeter(1, ["code"], {"code": 1.0})
    made.open(0, "code")
    return made


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


def earlier_keys(rank: int) -> object:
    """Rank 1 gives keys that all have agreed on, but not those that the others give."""
    for metrics in ({"x": 1.0, "z": 1.0}, {"x": 1.0}):
        otel_train.reduce_loss_metrics(metrics)
    return otel_train.reduce_loss_metrics({"x": 1.0, **({"z": 1.0} if rank == 1 else {})})


def no_number(rank: int) -> object:
    """Rank 1 gives something that is no number, at a later call."""
    otel_train.reduce_loss_metrics({"x": 1.0})
    return otel_train.reduce_loss_metrics({"x": "high" if rank == 1 else 1.0})


def counted(call: Callable[[], object]) -> int:
    """Return how many collectives gloo was given for a call."""
    with profile(activities=[ProfilerActivity.CPU]) as recording:
        call()
    return sum(event.name.startswith("gloo:") for event in recording.events() or ())


def collectives(_: int) -> object:
    """Collectives of calls whose keys are agreed on: the same as before, again, another one, and again."""
    source, steps = meter(), itertools.count(1)

    def loss() -> object:
        return otel_train.reduce_loss_metrics({"x": 1.0})

    def sources() -> object:
        return otel_train.aggregate_step_metrics([source], next(steps))

    for call in (loss, sources):
        call()
    return [counted(call) for call in (sources, sources, loss, loss)]


def raising_source(rank: int) -> object:
    """Rank 1's source raises in step 3; in step 4 all have values again."""
    said: list[object] = []
    source = Fails(rank)
    for step in (3, 4):
        try:
            said.append(otel_train.aggregate_step_metrics([source], step)["n"])
        except (OSError, OtelTrainError) as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


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
        running = telemetry._running
        assert running is not None
        wait_until(lambda: running.reducer.settled, 30.0)
        telemetry.flush(0.0)
        return telemetry.latest and [telemetry.latest[0], telemetry.latest[1]["x"]]


def mesh(rank: int) -> object:
    """A maximum over one dimension of a 2 x 2 mesh."""
    peak = Metric("peak", Reduction.MAX)
    with session("mesh", process_group=data_mesh(), blocking=True, metrics=[peak]) as telemetry:
        values = telemetry.step(1, {"peak": float(rank)}) or {}
        return [values["peak"], values["peak_rank"]]


def groups(rank: int) -> object:
    """Two sessions at once, over one dimension of a mesh and over all ranks."""
    train, evaluation = meter(), meter()
    data, key = session("data", sources=[train], process_group=data_mesh(), blocking=True), train.metrics[0].wandb_key
    everybody = session("all", sources=[evaluation], blocking=True)
    with data, everybody:
        said = []
        for step in (1, 2):
            # Tensor-parallel peers see the same data: the same picks on ranks 0 and 1, and on 2 and 3.
            train.pick(0, rows=10 ** (rank // 2))
            evaluation.pick(0, rows=10**rank)
            of_data = data.step(step, {"loss": float(rank // 2)}) or {}
            said.append([of_data[key], of_data["loss"], (everybody.step(step) or {})[key]])
    return said


def without_rank_0(rank: int) -> object:
    """Ranks 1 and 2 alone have a session; the log, the values, and which of them starts the sidecar."""
    pair = subgroup(1, 2)
    if pair is None:
        return None
    heard = BufferingHandler(100)
    logging.getLogger("otel_train.step.membership").addHandler(heard)
    with session("pair", process_group=pair, blocking=True) as telemetry:
        values = telemetry.step(1, {"loss": float(rank)}) or {}
        agreed = agree_identity(Environment.read(), RankGroup.of(pair, own=False), "", lambda _: OUT)
    return [values["loss"], len(heard.buffer), agreed.serves]


def pair_differs(rank: int) -> object:
    """Of ranks 2 and 3, the second lacks a key."""
    pair = subgroup(2, 3)
    if pair is None:
        return None
    return otel_train.reduce_loss_metrics({"x": 1.0, **({"y": 1.0} if rank == 2 else {})}, process_group=pair)


def identities(_: int) -> object:
    """Run id and attempt of a session of ranks 1 and 2, of one over a mesh, and of one over all."""
    pair = subgroup(1, 2)
    begun = [session("none", process_group=pair)] if pair is not None else []
    begun += [session("none", process_group=data_mesh()), session("none")]
    return [[each.identity.run_id, each.identity.attempt] for each in begun if each.identity is not None]


def another_world(rank: int) -> object:
    """Two sessions before the job has made its process groups anew, and two after."""
    begun = []
    for store in (None, OUT / "store"):
        if store is not None:
            dist.barrier()
            dist.destroy_process_group()
            dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=4)
        for group in (None, data_mesh()):
            with session("again", process_group=group) as telemetry:
                telemetry.step(1)
                begun.append(telemetry.identity and telemetry.identity.attempt)
    return begun


CASES = (
    oldest_reader,
    missing_sum_key,
    later_keys,
    later_sum,
    earlier_keys,
    no_number,
    collectives,
    raising_source,
    goes_on,
    failing_source,
    short_flush,
    mesh,
    groups,
    without_rank_0,
    pair_differs,
    identities,
    another_world,
)


def main() -> None:
    """Run the cases; a rank that hangs is ended by the group's own bound."""
    logging.getLogger("otel_train").setLevel(logging.INFO)
    os.environ.pop("TORCHELASTIC_RUN_ID")  # so that run ids are made up
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
