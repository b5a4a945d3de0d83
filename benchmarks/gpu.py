"""Logging a loss that is on a GPU, each step: what it does to the steps a second, and that it never waits for the GPU.

Only where there is a CUDA device; elsewhere the section says so, and `benchmarks.gpu_check` rehearses it on the CPU.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

import otel_train
from benchmarks.device import GPU, device_name, group_of_one, our_warnings, synchronize, waiting_forbidden
from benchmarks.fresh import in_fresh_process
from benchmarks.measure import Figures, Goal, Section
from otel_train.extras import is_installed

SOURCES = ("code", "prose", "web", "math")
WITHOUT = "without"
OURS = "otel_train: telemetry.step(step, {key: loss})"
ROWS = "otel_train: the loss of each row, by 4 sources on the GPU"
ITEM = "loss.item()"
WANDB = "wandb.log(loss.item()), offline"
TITLE = "A loss on the GPU"
Log = Callable[[int, torch.Tensor], object]
WARM_UP, CHECKED, PROFILED = 20, 100, 20
"""Steps before synchronising is an error (the first ones make streams and pinned memory), steps under it, and the last
of them that the profiler looks at too."""
SHARE = "% of a step's time"
"""How the goals of speed end that the device alone decides."""
MARK = "otel_train::step"
LOGGED_BY = ("wandb", "grpc", "opentelemetry.sdk")
"""Modules that the row of wandb needs."""


def run(*, quick: bool) -> Section:
    """Measure, where there is a GPU."""
    if not torch.cuda.is_available():
        return Section(12, TITLE, "Not run: there is no CUDA device here.", "steps a second")
    return measure(GPU, quick=quick)


def measure(device: str, *, quick: bool) -> Section:
    """Measure on a device; "cpu" shows that it runs."""
    environment = {"OTEL_TRAIN_SIDECAR": "external"}
    problems = {
        grouped: in_fresh_process(environment, _waits, device, grouped=grouped) for grouped in (False, True)
    }  # before the timing: each in a process whose CUDA context ends with it
    section = in_fresh_process(environment, _measure, device, quick=quick)
    for grouped, problem in problems.items():
        where = "in a NCCL group of one rank" if grouped else "without a group"
        done = f"none in {CHECKED} steps, {PROFILED} of them under the profiler"
        section.goals.append(Goal(f"no synchronising call, {where}", problem or done, not problem))
    return section


class Training:
    """A small model's training: a few milliseconds a step on a large GPU, with the CPU running ahead of it."""

    def __init__(self, device: str, width: int = 4096, layers: int = 6, rows: int = 2048) -> None:
        self.about = f"{layers} linear layers of {width}, {rows} rows a step, bfloat16, SGD"
        parts = [
            part
            for _ in range(layers)
            for part in (torch.nn.Linear(width, width, dtype=torch.bfloat16), torch.nn.GELU())
        ]
        self._model = torch.nn.Sequential(*parts).to(device)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=1e-4)
        self._rows = torch.randn(rows, width, device=device, dtype=torch.bfloat16)
        self.sources = torch.randint(0, len(SOURCES), (rows,), device=device)
        """Source of each row, int64 [rows] on the GPU."""
        self.by_row = torch.zeros(rows, device=device)
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


def _measure(device: str, *, quick: bool) -> Section:
    rounds, steps = (3, 20) if quick else (30, 100)
    training = Training(device) if device == GPU else Training(device, width=64, layers=2, rows=64)
    with tempfile.TemporaryDirectory() as name, _logging(Path(name), training) as ways:
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        order = list(ways)
        first = 1
        for number in range(rounds + 1):
            for way in order:
                took = _block(training, ways[way], first, steps, device)
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
            f"{device_name(device)}; {training.about}; {rounds} blocks of {steps} steps of each, in an order "
            "that turns, the GPU waited for at the end of a block only. The loss is logged at each step, and nothing "
            "else reads it." + ("" if WANDB in figures else " wandb is not installed there: its row is left out.")
        ),
        unit="steps a second",
        figures=figures,
        ours=OURS,
        goals=[
            Goal("within 0.5 % of the loop without", f"{slower * 100:+.2f} {SHARE}", slower <= 0.005),
            Goal("by source within 1 % of it", f"{rows_slower * 100:+.2f} {SHARE}", rows_slower <= 0.01),
        ],
    )


@contextlib.contextmanager
def _logging(folder: Path, training: Training) -> Iterator[dict[str, Log]]:
    """Give the ways to log a loss."""
    by_source = [otel_train.Scalar("train/loss", by=SOURCES)]
    with (
        otel_train.init(ring_dir=folder / "rings", close_timeout=0.0) as telemetry,
        otel_train.init(ring_dir=folder / "by_source", metrics=by_source, close_timeout=0.0) as of_rows,
        contextlib.ExitStack() as stack,
    ):
        ways: dict[str, Log] = {
            WITHOUT: lambda _step, _loss: None,
            OURS: lambda step, loss: telemetry.step(step, {"train/loss": loss}),
            ROWS: lambda step, _loss: of_rows.step(step, {"train/loss": training.by_row}, by=training.sources),
            ITEM: lambda _step, loss: loss.item(),
        }
        if all(map(is_installed, LOGGED_BY)):
            from benchmarks.peers import wandb_run  # noqa: PLC0415  # a machine for the GPU's check has torch only

            logged = stack.enter_context(wandb_run(folder))
            ways[WANDB] = lambda _step, loss: logged.log({"train/loss": loss.item()})
        yield ways


def _block(training: Training, log: Log, first: int, steps: int, device: str) -> float:
    """Return the seconds of a block, until the GPU is done."""
    gc.collect()
    synchronize(device)
    begin = time.perf_counter()
    for step in range(first, first + steps):
        log(step, training.step())
    synchronize(device)
    return time.perf_counter() - begin


def _waits(device: str, *, grouped: bool) -> str:
    """Return what of our step waited for the GPU, empty where nothing did and the values arrived."""
    training = Training(device, width=512, layers=2, rows=64)
    last = WARM_UP + CHECKED
    by_source = [otel_train.Scalar("by_source/loss", by=SOURCES)]
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == GPU else [])]
    with (
        tempfile.TemporaryDirectory() as name,
        our_warnings() as problems,
        group_of_one(Path(name), device) if grouped else contextlib.nullcontext(),
        otel_train.init(ring_dir=Path(name) / "rings", metrics=by_source, close_timeout=0.0) as telemetry,
    ):
        recording = profile(activities=kinds)
        for step in range(1, last + 1):
            if step == last - PROFILED + 1:
                synchronize(device)
                recording.start()
            loss = training.step()
            # Around our step only. What waits raises in it, is caught there as all of our failures are, and is said.
            with waiting_forbidden(device, forbidden=step > WARM_UP), record_function(MARK):
                telemetry.step(step, {"train/loss": loss, "by_source/loss": training.by_row}, by=training.sources)
        synchronize(device)
        recording.stop()
        telemetry.flush(1.0)
        newest = telemetry.latest
        if newest is None or newest[0] != last:
            problems.append(f"the last step's values did not come back: {newest}")
        return "; ".join([*problems, *_synchronizing(recording)])


def _synchronizing(recording: profile) -> list[str]:
    """Return the calls inside our steps that wait for the GPU, by the profiler; a step that it did not see is one."""
    events = recording.events() or ()  # type: ignore[no-untyped-call]
    spans = [event.time_range for event in events if event.name == MARK and "CUDA" not in str(event.device_type)]
    calls = [
        event.name
        for event in events
        if ("Synchronize" in event.name or event.name == "cudaMemcpy")
        and any(span.start <= event.time_range.start <= span.end for span in spans)
    ]
    return [*calls, *([] if len(spans) == PROFILED else [f"the profiler saw {len(spans)} of {PROFILED} steps"])]
