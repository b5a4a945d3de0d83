"""Run by torchrun: paced steps whose values are known from their numbers, and something that goes wrong in one of them.

The training step is a little Python work and a collective of the job's own. It goes on until a file appears, or for a
number of steps. Beside it each rank writes when a step began and how long the work took with its telemetry.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

import otel_train

WORK = 20_000
"""Numbers that a step adds up."""
FORK = multiprocessing.get_context("fork")
WAYS = (FORK, multiprocessing.get_context("forkserver"), multiprocessing.get_context("spawn"))


def picks(step: int, rank: int) -> int:
    """Return the picks of a rank in a step."""
    return step % 4 + rank


class Loop:
    """The objects that a step that goes wrong may touch."""

    def __init__(self, telemetry: otel_train.Telemetry, meter: otel_train.MixingMeter) -> None:
        self.telemetry = telemetry
        self.meter = meter

    def train_in_a_child(self) -> None:
        """Go on as if the child were the rank."""
        for step in (1, 10_000):
            self.meter.pick(0, rows=1000)
            self.telemetry.step(step, {"train/loss": -1.0})
        self.telemetry.flush()


def count_elsewhere() -> None:
    """Count with a meter that is no session's."""
    meter = otel_train.MixingMeter(1, ["code"], {"code": 1.0})
    meter.open(0, "code")
    meter.pick(0, rows=1000)


def raise_error(_: Loop) -> None:
    raise ValueError("the data is bad")


def leave(_: Loop) -> None:
    os._exit(3)


def kill(_: Loop) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fork(loop: Loop) -> None:
    """Have children of every kind, and wait for each without a bound."""
    child = os.fork()
    if not child:
        loop.train_in_a_child()
        loop.telemetry.close()
        sys.exit()  # through the session's end and what runs at an exit
    assert os.waitpid(child, 0)[1] == 0
    for way in WAYS:
        # Only a forked child has the session; the others load the package and end.
        target = loop.train_in_a_child if way is FORK else count_elsewhere
        process = way.Process(target=target)
        process.start()
        process.join()
        assert process.exitcode == 0, way.get_start_method()


WRONGS: dict[str, Callable[[Loop], None]] = {"raise": raise_error, "exit": leave, "kill": kill, "fork": fork}


def all_told_to_stop(stop: Path) -> bool:
    """Tell whether rank 0 has seen the file, alike on all ranks."""
    told = torch.tensor(float(dist.get_rank() == 0 and stop.exists()))
    dist.all_reduce(told)
    return bool(told)


def main() -> None:
    """Take the steps; the loss of step n is n."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "out",
        type=lambda path: Path(os.path.expandvars(path)),
        help="where the file `stop` is looked for and the ranks write",
    )
    parser.add_argument("--steps", type=int, default=0, help="0: until told to stop")
    parser.add_argument("--pace", type=float, default=0.05, help="seconds a step")
    parser.add_argument("--wrong", choices=WRONGS)
    parser.add_argument("--at", type=int, default=0, help="the step in which it goes wrong")
    parser.add_argument("--on", type=int, nargs="*", default=[1], help="the ranks where it does")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    arguments.out.mkdir(exist_ok=True)
    meter = otel_train.MixingMeter(1, ["code"], {"code": 1.0})
    meter.open(0, "code")
    with (arguments.out / f"rank{rank}.times").open("a", buffering=1) as times:
        with otel_train.init(sources=[meter]) as telemetry:
            loop = Loop(telemetry, meter)
            begin = time.monotonic()
            for step in itertools.count(1):
                before = time.monotonic_ns()
                meter.pick(0, rows=picks(step, rank))
                sum(range(WORK))
                telemetry.step(step, {"train/loss": float(step)})
                times.write(f"{step} {before} {time.monotonic_ns() - before}\n")
                if step == 1 and telemetry.identity is not None:
                    with (arguments.out / f"rank{rank}.run").open("a") as runs:
                        runs.write(f"{telemetry.identity.run_id}\n")
                if step == arguments.at and rank in arguments.on:
                    WRONGS[arguments.wrong](loop)
                if all_told_to_stop(arguments.out / "stop") or step == arguments.steps:
                    break
                # Never two steps within one of Prometheus' milliseconds, also when it is late.
                time.sleep(max(arguments.pace / 10, begin + step * arguments.pace - time.monotonic()))
            ended = time.monotonic()
        (arguments.out / f"rank{rank}.close").write_text(json.dumps(time.monotonic() - ended))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
