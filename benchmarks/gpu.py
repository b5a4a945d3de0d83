"""Logging a loss that is on a GPU, each step: what it does to the steps a second, and that it never waits for the GPU.

Only where there is a CUDA device; elsewhere the section says so.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist

import otel_train
from benchmarks.fresh import in_fresh_process
from benchmarks.measure import Figures, Goal, Section
from benchmarks.peers import wandb_run

SOURCES = ("code", "prose", "web", "math")
WITHOUT = "without"
OURS = "otel_train: telemetry.step(step, {key: loss})"
ROWS = "otel_train: the loss of each row, by 4 sources on the GPU"
ITEM = "loss.item()"
WANDB = "wandb.log(loss.item()), offline"
TITLE = "A loss on the GPU"
Log = Callable[[int, torch.Tensor], object]
WARM_UP, CHECKED = 20, 100
"""Steps before synchronising is an error (the first ones make streams and pinned memory), and steps under it."""


def run(*, quick: bool) -> Section:
    """Measure."""
    if not torch.cuda.is_available():
        return Section(12, TITLE, "Not run: there is no CUDA device here.", "steps a second")
    environment = {"OTEL_TRAIN_SIDECAR": "external"}
    problems = {
        grouped: in_fresh_process(environment, _waits, grouped=grouped) for grouped in (False, True)
    }  # before the timing: each in a process whose CUDA context ends with it
    section = in_fresh_process(environment, _measure, quick=quick)
    for grouped, problem in problems.items():
        where = "in a NCCL group of one rank" if grouped else "without a group"
        section.goals.append(
            Goal(f"no synchronising call, {where}", problem or f"none in {CHECKED} steps", not problem)
        )
    return section


class Training:
    """A small model's training: a few milliseconds a step on a large GPU, with the CPU running ahead of it."""

    def __init__(self, width: int = 4096, layers: int = 6, rows: int = 2048) -> None:
        self.about = f"{layers} linear layers of {width}, {rows} rows a step, bfloat16, SGD"
        parts = [
            part
            for _ in range(layers)
            for part in (torch.nn.Linear(width, width, dtype=torch.bfloat16), torch.nn.GELU())
        ]
        self._model = torch.nn.Sequential(*parts).cuda()
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=1e-4)
        self._rows = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16)
        self.sources = torch.randint(0, len(SOURCES), (rows,), device="cuda")
        """Source of each row, int64 [rows] on the GPU."""
        self.by_row = torch.zeros(rows, device="cuda")
        """Loss of each row in the last step, float32 [rows] on the GPU."""

    def step(self) -> torch.Tensor:
        """Train one step and return the loss, float32 [] on the GPU."""
        self._optimizer.zero_grad(set_to_none=True)
        by_row: torch.Tensor = self._model(self._rows).float().square().mean(1)
        loss = by_row.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.by_row = by_row.detach()
        return loss.detach()


def _measure(*, quick: bool) -> Section:
    rounds, steps = (3, 20) if quick else (30, 100)
    training = Training()
    with tempfile.TemporaryDirectory() as name, _logging(Path(name), training) as ways:
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        order = list(ways)
        first = 1
        for number in range(rounds + 1):
            for way in order:
                took = _block(training, ways[way], first, steps)
                if number:
                    seconds[way].append(took / steps)
            first += steps
            order.append(order.pop(0))
    figures = {way: Figures([1 / took for took in times]) for way, times in seconds.items()}
    slower = statistics.median(
        ours / without - 1 for ours, without in zip(seconds[OURS], seconds[WITHOUT], strict=True)
    )
    rows_slower = statistics.median(
        ours / without - 1 for ours, without in zip(seconds[ROWS], seconds[WITHOUT], strict=True)
    )
    return Section(
        number=12,
        title=TITLE,
        how=(
            f"{torch.cuda.get_device_name()}; {training.about}; {rounds} blocks of {steps} steps of each, in an order "
            "that turns, the GPU waited for at the end of a block only. The loss is logged at each step, and nothing "
            "else reads it."
        ),
        unit="steps a second",
        figures=figures,
        ours=OURS,
        goals=[
            Goal("within 0.5 % of the loop without", f"{slower * 100:+.2f} % of a step's time", slower <= 0.005),
            Goal("by source within 1 % of it", f"{rows_slower * 100:+.2f} % of a step's time", rows_slower <= 0.01),
        ],
    )


@contextlib.contextmanager
def _logging(folder: Path, training: Training) -> Iterator[dict[str, Log]]:
    """Give the ways to log a loss."""
    by_source = [otel_train.Scalar("train/loss", by=SOURCES)]
    with (
        otel_train.init(ring_dir=folder / "rings", close_timeout=0.0) as telemetry,
        otel_train.init(ring_dir=folder / "by_source", metrics=by_source, close_timeout=0.0) as of_rows,
        wandb_run(folder) as logged,
    ):
        yield {
            WITHOUT: lambda _step, _loss: None,
            OURS: lambda step, loss: telemetry.step(step, {"train/loss": loss}),
            ROWS: lambda step, _loss: of_rows.step(step, {"train/loss": training.by_row}, by=training.sources),
            ITEM: lambda _step, loss: loss.item(),
            WANDB: lambda _step, loss: logged.log({"train/loss": loss.item()}),
        }


def _block(training: Training, log: Log, first: int, steps: int) -> float:
    """Return the seconds of a block, until the GPU is done."""
    gc.collect()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for step in range(first, first + steps):
        log(step, training.step())
    torch.cuda.synchronize()
    return time.perf_counter() - begin


@contextlib.contextmanager
def _group(folder: Path) -> Iterator[None]:
    """Make a group of this one rank, as a job on GPUs has it."""
    device = torch.device("cuda", torch.cuda.current_device())
    backends, store = "cpu:gloo,cuda:nccl", f"file://{folder}/store"
    dist.init_process_group(backends, init_method=store, rank=0, world_size=1, device_id=device)
    yield
    dist.destroy_process_group()


def _waits(*, grouped: bool) -> str:
    """Return what of our step waited for the GPU, empty where nothing did and the values arrived."""
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("otel_train").addHandler(handler)
    training = Training(width=512, layers=2, rows=64)
    last = WARM_UP + CHECKED
    by_source = [otel_train.Scalar("by_source/loss", by=SOURCES)]
    with (
        tempfile.TemporaryDirectory() as name,
        _group(Path(name)) if grouped else contextlib.nullcontext(),
        otel_train.init(ring_dir=Path(name) / "rings", metrics=by_source, close_timeout=0.0) as telemetry,
    ):
        for step in range(1, last + 1):
            loss = training.step()
            # Around our step only. What waits raises in it, is caught there as all of our failures are, and is said.
            torch.cuda.set_sync_debug_mode("error" if step > WARM_UP else "default")
            telemetry.step(step, {"train/loss": loss, "by_source/loss": training.by_row}, by=training.sources)
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        telemetry.flush(1.0)
        newest = telemetry.latest
    if newest is None or newest[0] != last:
        warnings.append(f"the last step's values did not come back: {newest}")
    return "; ".join(warnings)
