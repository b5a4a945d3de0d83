"""Run by torchrun on two ranks: each rank runs every case and writes what came of each."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist

import otel_train
from otel_train.exceptions import OtelTrainError
from otel_train.mixing import MixingMeter
from otel_train.step.reduction import Reducer
from otel_train.step.sidecar_process import wait_until

OUT = Path(sys.argv[1])
OPTIONAL = ("opentelemetry", "grpc", "google.protobuf", "wandb", "rich", "click")
OPTIONS: dict[str, tuple[Any, Any]] = {
    "log_every": (1, 2),
    "blocking": (False, True),
    "max_in_flight": (4, 5),
    "reduction_timeout": (2.0, 3.0),
    "close_timeout": (0.3, 0.4),
    "rank_interval": (10.0, 1.0),
    "ring_records": (64, 128),
}
"""Of each option, rank 0's value and rank 1's."""
RESTS = {
    "rest": (10, range(1, 26), range(1, 26)),
    "only_rest": (1000, range(1, 26), range(1, 26)),
    "stride": (10, range(1, 32, 10), range(1, 32, 10)),
    "other_rests": (10, range(1, 26), range(1, 24)),
}
"""Of each session `log_every`, and the steps of rank 0 and of rank 1."""


class Heard(logging.Handler):
    """Keeps the warnings of a case."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.said.append(record.getMessage())


HEARD = Heard()


def meter() -> MixingMeter:
    """Return a meter with two open slots."""
    made = MixingMeter(2, ["a", "b"], {"a": 1, "b": 3})
    made.open(0, "a")
    made.open(1, "b")
    return made


def session(name: str, source: MixingMeter | None = None, **options: Any) -> otel_train.Telemetry:
    """Return a session with short bounds."""
    return otel_train.init(
        sources=[source] if source else [],
        ring_dir=OUT / name,
        **{"reduction_timeout": 2.0, "close_timeout": 0.3, **options},
    )


def reducer_of(telemetry: otel_train.Telemetry) -> Reducer:
    """Return a session's reducer, which it has from the first step on."""
    assert telemetry._running is not None
    return telemetry._running.reducer


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
    with session("other_schema") as telemetry:
        return telemetry.step(1, {"loss": 1.0, **({"extra": 1.0} if rank else {})})


def other_options(rank: int) -> object:
    """Rank 1 has another value of one option at a time."""
    errors = []
    for name, values in OPTIONS.items():
        with session("other_options", **{name: values[rank]}) as telemetry:
            try:
                telemetry.step(1, {"loss": 1.0})
            except OtelTrainError as error:
                errors.append(f"{type(error).__name__}: {error}")
    return errors


def one_wrong(rank: int) -> object:
    """Rank 1 alone gives a key that is none at the first step."""
    with session("one_wrong") as telemetry:
        return telemetry.step(1, {("_loss" if rank else "loss"): 1.0})


def one_unreadable(rank: int) -> object:
    """Rank 1 alone gives a value that can't be read at the first step, and later."""
    with session("one_unreadable", blocking=True) as telemetry:
        rows = [telemetry.step(step, {"loss": "high" if rank else 2.0, "other": 1.0}) or {} for step in (1, 2)]
        return [{key: row.get(key) for key in ("loss", "other", "telemetry/values_dropped")} for row in rows]


def long_run_id(rank: int) -> object:
    """Rank 1 alone gives a run id that is too long."""
    return session("long_run_id", run_id="r" * (129 if rank else 8)).identity


def blocking(rank: int) -> object:
    """The values of a step come back in that step, on every rank."""
    with session("blocking", blocking=True) as telemetry:
        return [(telemetry.step(step, {"loss": float(step + rank)}) or {})["loss"] for step in (1, 2, 3)]


def asynchronous(rank: int) -> object:
    """Values are recorded under the step that they belong to."""
    source = meter()
    with session("asynchronous", source) as telemetry:
        for step in range(1, 31):
            source.pick(0, rows=step * (rank + 1))
            telemetry.step(step, {"loss": float(step)})
        dist.barrier()
    return sorted(name for name in sys.modules if name in OPTIONAL)


def out_of_step(rank: int) -> object:
    """Rank 1 skips step 2: what does not belong together is thrown away, the rest is right."""
    with session("out_of_step", blocking=True) as telemetry:
        return [bool(telemetry.step(step, {"loss": 1.0})) for step in ((1, 2, 4) if rank == 0 else (1, 3, 4))]


def train(name: str, steps: list[int], rank: int) -> None:
    """Take those steps without waiting; the loss of step n is n on rank 0 and 10 n on rank 1."""
    with session(name, max_in_flight=20, close_timeout=0.5) as telemetry:
        for step in steps:
            telemetry.step(step, {"loss": float(step * 10**rank)})
        dist.barrier()


def skips(rank: int) -> object:
    """Rank 1 skips step 4, and has one step less from there on."""
    train("skips", [step for step in range(1, 11) if rank == 0 or step != 4], rank)
    return HEARD.said


def ends_early(rank: int) -> object:
    """Rank 1 ends after step 5, rank 0 after step 12."""
    train("ends_early", list(range(1, 6 if rank else 13)), rank)
    return HEARD.said


def repeated(rank: int) -> object:
    """Each step comes once for each micro-batch: three on rank 0, one on rank 1."""
    with session("repeated", close_timeout=10.0, max_in_flight=8) as telemetry:
        for step in range(1, 6):
            for micro in ((1, 2, 6), (7,))[rank]:
                telemetry.step(step, {"loss": float(step * micro)})
    return HEARD.said


def added(rank: int) -> object:
    """Micro-batches of 1 and 3 tokens on rank 0, of 4 on rank 1, and then their step."""
    with session("added", close_timeout=10.0, max_in_flight=8) as telemetry:
        for step in range(1, 6):
            for loss, tokens in (((8, 1), (4, 3)), ((2, 4),))[rank]:
                telemetry.add({"loss": float(step * loss)}, weight=tokens)
            telemetry.step(step)
    return HEARD.said


def rest(rank: int) -> object:
    """Sessions that end in the middle of an interval; the steps of rank 0 and of rank 1, a pick each."""
    for name, (every, steps, others) in RESTS.items():
        source = meter()
        with session(name, source, log_every=every, close_timeout=5.0 if steps == others else 0.5) as telemetry:
            for step in others if rank else steps:
                source.pick(0)
                telemetry.step(step, {"loss": 1.0})
        dist.barrier()
    return HEARD.said


def other_numbers(rank: int) -> object:
    """Rank 1 begins with step 101."""
    train("other_numbers", list(range(101, 113) if rank else range(1, 13)), rank)
    return HEARD.said


def bounded(rank: int) -> object:
    """Rank 1 comes to step 2 long after rank 0, which has two steps more than may be under way."""
    store = dist.distributed_c10d._get_default_store()
    under_way = []
    with session("bounded", max_in_flight=3, reduction_timeout=60.0) as telemetry:
        for step in range(1, 7):
            if rank == 1 and step == 2:
                telemetry.flush(0.0)  # the first step waits for further calls of it
                store.wait(["filled"])
                time.sleep(0.3)
                store.set("came", "")
            telemetry.step(step, {"loss": 1.0})
            reducer = reducer_of(telemetry)
            if rank == 0:
                under_way.append([len(reducer._flights), store.check(["came"])])
            if rank == 0 and step == 4:
                telemetry.flush(0.0)
                store.set("filled", "")
        wait_until(lambda: reducer_of(telemetry).settled, 30.0)
    return [max((flights for flights, _ in under_way), default=0), [came for _, came in under_way], HEARD.said]


def gives_up(rank: int) -> object:
    """Rank 1 does not come to step 2 before rank 0 has ended."""
    store = dist.distributed_c10d._get_default_store()
    with session("gives_up", max_in_flight=3, reduction_timeout=0.3) as telemetry:
        for step in range(1, 10):
            if rank == 1 and step == 2:
                store.wait(["ended"])
            telemetry.step(step, {"loss": 1.0})
            if step == 1:
                telemetry.flush(0.0)  # the first step waits for further calls of it
                dist.barrier()
    if rank == 0:
        store.set("ended", "")
    return HEARD.said


def leaves_early(rank: int) -> object:
    """Rank 1 is gone after step 3: rank 0 goes on, and nothing it does waits longer than its bounds."""
    telemetry = session("leaves_early", max_in_flight=2, reduction_timeout=1.0, close_timeout=0.5)
    for step in range(1, 21):
        telemetry.step(step, {"loss": 1.0})
        if rank == 1 and step == 3:
            os._exit(0)
        time.sleep(0.02)
    begin = time.monotonic()
    telemetry.close()
    return time.monotonic() - begin < 5


CASES = (
    aggregated,
    loss_metrics,
    other_keys,
    other_schema,
    other_options,
    one_wrong,
    one_unreadable,
    long_run_id,
    blocking,
    asynchronous,
    out_of_step,
    skips,
    ends_early,
    repeated,
    added,
    rest,
    other_numbers,
    bounded,
    gives_up,
    leaves_early,
)


def main() -> None:
    """Run the cases; a rank that hangs is ended by the group's own bound."""
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("otel_train").addHandler(HEARD)
    dist.init_process_group("gloo", timeout=dt.timedelta(seconds=60))
    rank = dist.get_rank()
    said: dict[str, object] = {}
    for case in CASES:
        HEARD.said = []
        try:
            said[case.__name__] = case(rank)
        except OtelTrainError as error:
            said[case.__name__] = f"{type(error).__name__}: {error}"
        (OUT / f"rank{rank}.json").write_text(json.dumps(said))
        if case is not leaves_early:
            dist.barrier()
    os._exit(0)  # the other rank has left


if __name__ == "__main__":
    main()
