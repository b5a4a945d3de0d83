"""Run by torchrun: each rank runs one case and writes what came of it."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

import otel_train
from otel_train.exceptions import OtelTrainError
from otel_train.mixing import MixingMeter

OUT = Path(sys.argv[2]) if len(sys.argv) > 2 else Path()
OPTIONAL = ("opentelemetry", "grpc", "google.protobuf", "wandb", "rich", "click")


def meter() -> MixingMeter:
    """Return a meter with two open slots."""
    made = MixingMeter(2, ["a", "b"], {"a": 1, "b": 3})
    made.open(0, "a")
    made.open(1, "b")
    return made


def session(source: MixingMeter | None = None, **options: Any) -> otel_train.Telemetry:
    """Return a session with short bounds."""
    return otel_train.init(
        sources=[source] if source else [], ring_dir=OUT / "rings", **{"reduction_timeout": 2.0, **options}
    )


def aggregated(rank: int) -> object:
    """Rank 0 picks a once, rank 1 picks b twice: reduced in the process."""
    source = meter()
    source.pick(rank, rows=rank + 1, tokens=10)
    source.end_step(1)
    return otel_train.aggregate_step_metrics([source], 3)


def loss_metrics(rank: int) -> object:
    """A mean, a total with its maximum, twice with one agreement."""
    return [otel_train.reduce_loss_metrics({"x": rank, "n": step + rank}, sum_keys=["n"]) for step in (1, 2)]


def other_keys(rank: int) -> object:
    """Rank 1 gives a key that rank 0 does not."""
    return otel_train.reduce_loss_metrics({"x": 1.0, **({"y": 1.0} if rank else {})})


def other_schema(rank: int) -> object:
    """Rank 1 logs a key at the first step that rank 0 does not."""
    with session() as telemetry:
        return telemetry.step(1, {"loss": 1.0, **({"extra": 1.0} if rank else {})})


def one_wrong(rank: int) -> object:
    """Rank 1 alone gives something that is no number at the first step."""
    with session() as telemetry:
        return telemetry.step(1, {"loss": "high" if rank else 1.0})


def blocking(rank: int) -> object:
    """The values of a step come back in that step, on every rank."""
    with session(blocking=True) as telemetry:
        return [(telemetry.step(step, {"loss": float(step + rank)}) or {})["loss"] for step in (1, 2, 3)]


def asynchronous(rank: int) -> object:
    """Values are recorded under the step that they belong to."""
    source = meter()
    with session(source) as telemetry:
        for step in range(1, 31):
            source.pick(0, rows=step * (rank + 1))
            telemetry.step(step, {"loss": float(step)})
    return sorted(name for name in sys.modules if name in OPTIONAL)


def out_of_step(rank: int) -> object:
    """Rank 1 skips step 2: what does not belong together is thrown away, the rest is right."""
    with session(blocking=True) as telemetry:
        return [bool(telemetry.step(step, {"loss": 1.0})) for step in ((1, 2, 4) if rank == 0 else (1, 3, 4))]


def leaves_early(rank: int) -> object:
    """Rank 1 is gone after step 3: rank 0 goes on, and nothing it does waits longer than its bounds."""
    telemetry = session(max_in_flight=2, reduction_timeout=1.0, close_timeout=0.5)
    for step in range(1, 21):
        telemetry.step(step, {"loss": 1.0})
        if rank == 1 and step == 3:
            (OUT / "rank1.json").write_text('"left"')
            os._exit(0)
        time.sleep(0.02)
    begin = time.monotonic()
    telemetry.close()
    (OUT / "rank0.json").write_text(json.dumps(time.monotonic() - begin < 5))
    os._exit(0)


CASES: dict[str, Callable[[int], object]] = {
    case.__name__: case
    for case in (
        aggregated,
        loss_metrics,
        other_keys,
        other_schema,
        one_wrong,
        blocking,
        asynchronous,
        out_of_step,
        leaves_early,
    )
}


def main() -> None:
    """Run the case that the first argument names."""
    logging.basicConfig(level=logging.INFO)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    try:
        said = CASES[sys.argv[1]](rank)
    except OtelTrainError as error:
        said = f"{type(error).__name__}: {error}"
    (OUT / f"rank{rank}.json").write_text(json.dumps(said))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
