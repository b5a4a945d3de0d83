"""accelerate: scripts that log through its tracker interface, each process writing down what it logs."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import TestCase

os.environ["ACCELERATE_USE_CPU"] = "true"

import torch  # after the environment that accelerate reads
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils.data import DataLoader

from otel_train import Scalar, SourceMeter
from otel_train.integrations import logging_ranks
from otel_train.integrations.accelerate import OtelTrainTracker
from tests.integrations.support.terminated import LAST, call_in_fork, terminate
from tests.support.patience import BOUNDS, have_nobody_send

STEPS, SAVED_AFTER, MICRO, HELD_OUT = 12, 7, 2, 13
_STORE = vars(dist)["TCPStore"]("127.0.0.1", int(os.environ["JOB_PORT"]), 2, is_master=os.environ["RANK"] == "0")
_GROUPS = itertools.count()


def meet() -> None:
    """Make the default group, as `Accelerator()` would; torchrun's store has the addresses of the group before."""
    meeting = vars(dist)["PrefixStore"](str(next(_GROUPS)), _STORE)
    dist.init_process_group("gloo", store=meeting, rank=int(os.environ["RANK"]), world_size=2)


class Script:
    """What a process of a user's script has, and what it logs: step, key, value and weight."""

    def __init__(self, folder: Path, micro: int = MICRO, **options: Any) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)  # several scripts in one process
        if not dist.is_initialized():
            meet()
        options = {"ring_dir": folder / "rings", "max_in_flight": 64, **BOUNDS, **options}
        self.tracker = OtelTrainTracker(**options)
        self.accelerator = Accelerator(log_with=[self.tracker], gradient_accumulation_steps=micro)
        self.accelerator.register_for_checkpointing(self.tracker)
        self.rank = self.accelerator.process_index
        self.folder = folder
        self.logged: list[tuple[int, str, float, float]] = []
        # 42 rows: the last batch of a pass is short, and accelerate fills it up from the first ones.
        rows: Any = [torch.full((4,), float(row)) for row in range(42)]
        self.held_rows = held_rows = rows[:HELD_OUT]
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
        self.model, self.optimizer, self.loader, self.held_out = self.accelerator.prepare(
            model, optimizer, DataLoader(rows, batch_size=4), DataLoader(held_rows, batch_size=4)
        )

    def batches(self) -> Iterator[torch.Tensor]:
        """Yield batches, pass after pass."""
        while True:
            yield from self.loader

    def losses(self) -> Iterator[tuple[torch.Tensor, int, bool]]:
        """Train, and yield each micro-batch's loss, its rows that count, and whether it ends an optimizer step."""
        for number, batch in enumerate(self.batches()):
            with self.accelerator.accumulate(self.model):
                loss = self.model(batch).square().mean() + 10 * self.rank
                self.accelerator.backward(loss)
                self.optimizer.step()
                self.optimizer.zero_grad()
            yield loss, 1 + (number + self.rank) % 3, self.accelerator.sync_gradients

    def note(self, step: int, key: str, value: Any, weight: float = 1.0) -> None:
        """Write down what is logged."""
        self.logged.append((step, key, torch.as_tensor(value).item(), weight))

    def write(self) -> None:
        """Write down what this process has logged in all parts of its case."""
        path = self.folder / f"rank{self.rank}.json"
        before = json.loads(path.read_text()) if path.exists() else []
        path.write_text(json.dumps([*before, *self.logged]))


def train(script: Script, first: int, last: int) -> None:
    """Log a step at its end, with its micro-batches' losses and this process' own rate."""
    steps = first - 1
    for loss, weight, ends in script.losses():
        script.tracker.add({"train/loss": loss}, weight=weight)
        script.note(steps + 1, "train/loss", loss, weight)
        if ends:
            steps += 1
            rate = torch.tensor(steps * 10.0**script.rank)
            script.accelerator.log({"train/rate": rate, "train/rows": 8, "phase": "warm"}, step=steps)
            script.note(steps, "train/rate", rate)
            if steps % 5 == 0:
                evaluate(script, steps)
            if steps == last:
                return


def evaluate(script: Script, steps: int) -> None:
    """Log an evaluation of all rows that accelerate gathers, one of this process' own, and one of the main process."""
    model, gathered = script.accelerator.unwrap_model(script.model), []
    with torch.no_grad():
        for batch in script.held_out:
            losses = model(batch).square().flatten()
            gathered.append(script.accelerator.gather_for_metrics(losses))
        exact = model(torch.stack(script.held_rows)).square().mean()
    script.accelerator.log({"eval/loss": torch.cat(gathered).mean(), "eval/own": losses.mean()}, step=steps)
    script.note(steps, "eval/loss", exact)
    script.note(steps, "eval/own", losses.mean())
    if script.accelerator.is_main_process:
        script.accelerator.log({"eval/main": steps * 2.0}, step=steps)
        script.note(steps, "eval/main", steps * 2.0)


def straight(folder: Path) -> None:
    """Train in one part, with a configuration and trackers that are begun twice."""
    script = Script(folder, metrics=[Scalar("train/rows", "sum")])
    script.accelerator.init_trackers("pilot", config={"rate": 0.5, "name": "pilot"})
    script.accelerator.init_trackers("pilot")
    train(script, 1, STEPS)
    script.write()
    script.accelerator.end_training()


def resumed(folder: Path) -> None:
    """Train in two parts, the second from accelerate's own checkpoint."""
    for first, last in ((1, SAVED_AFTER), (SAVED_AFTER + 1, STEPS)):
        script = Script(folder)
        script.accelerator.init_trackers("pilot")
        if first > 1:
            script.accelerator.load_state(str(folder / "checkpoint"))
        train(script, first, last)
        script.accelerator.save_state(str(folder / "checkpoint"))
        script.write()
        script.accelerator.end_training()


def repeated(folder: Path) -> None:
    """Log each micro-batch with the number of steps so far; trackers are begun on the main process only."""
    script = Script(folder, micro=3)
    if script.accelerator.is_main_process:
        script.accelerator.init_trackers("pilot")
    steps = 0
    for loss, _, ends in script.losses():
        steps += ends
        script.accelerator.log({"train/loss": loss.item()}, step=steps)
        script.note(steps, "train/loss", loss)
        if steps == STEPS:
            break
    script.write()
    script.accelerator.end_training()


def counted(folder: Path) -> None:
    """Log without steps, and once more after the end."""
    script = Script(folder, micro=1)
    for step, (loss, _, _) in zip(range(1, STEPS), script.losses(), strict=False):
        script.accelerator.log({"train/loss": loss})
        script.note(step, "train/loss", loss)
    script.write()
    script.accelerator.end_training()
    with TestCase().assertLogs("otel_train.integrations.logged_fit", "WARNING") as logs:
        script.accelerator.log({"late": 1.0})
        script.tracker.log({"late": 1.0})
    (folder / f"late{script.rank}.json").write_text(json.dumps(logs.output))


def declared_main(folder: Path) -> None:
    """Log on the main process only, which the tracker is told."""
    log_on_main(Script(folder, main_process_only=True))


def undeclared_main(folder: Path) -> None:
    """Log on the main process only, which the tracker has to see."""
    logging_ranks.PATIENCE = 1.0
    log_on_main(Script(folder))
    logging_ranks.PATIENCE = 30.0


def log_on_main(script: Script) -> None:
    """Log more steps inside `if is_main_process` than a session keeps waiting for its peers."""
    for step, (loss, _, _) in zip(range(1, 101), script.losses(), strict=False):
        if script.accelerator.is_main_process:
            script.accelerator.log({"train/loss": loss}, step=step)
            script.note(step, "train/loss", loss)
    script.write()
    script.accelerator.end_training()


def failed(folder: Path) -> None:
    """Fail in the second step, and end the training as one should."""
    script = Script(folder)
    try:
        train(script, 1, 2)
        raise ArithmeticError  # noqa: TRY301
    except ArithmeticError:
        script.accelerator.end_training()
    script.write()


def terminated(folder: Path) -> None:
    """Get SIGTERM in a step, one micro-batch of which has been logged."""
    script = Script(folder)
    train(script, 1, LAST)
    loss, weight, _ = next(script.losses())
    script.tracker.add({"train/loss": loss}, weight=weight)
    script.note(LAST + 1, "train/loss", loss, weight)
    script.write()
    terminate(folder)


def measured(folder: Path) -> None:
    """Count a mix in one part."""
    count_mix(folder, (1, STEPS))


def measured_resumed(folder: Path) -> None:
    """Count the same mix in two parts, the second from accelerate's own checkpoint."""
    count_mix(folder, (1, SAVED_AFTER), (SAVED_AFTER + 1, STEPS))


def count_mix(folder: Path, *parts: tuple[int, int]) -> None:
    """Log the steps of a loader whose mix is measured, with another order of sources on each process."""
    for first, last in parts:
        meter = SourceMeter({"code": 1.0, "prose": 3.0})
        script = Script(folder, meter=meter)
        tags = [meter.tag(source) for source in ("code", "prose")]
        rows: Any = [tags[row * row % 7 > 2]({"row": row}) for row in range(8 * STEPS)]
        loader = script.accelerator.prepare(DataLoader(rows, batch_size=4))
        if first > 1:
            script.accelerator.load_state(str(folder / "checkpoint"))
            loader = script.accelerator.skip_first_batches(loader, first - 1)
        for step, batch in zip(range(first, last + 1), meter.counted(loader), strict=False):
            script.accelerator.log({"train/rows": len(batch["row"])}, step=step)
            script.note(step, "train/rows", len(batch["row"]))
        script.accelerator.save_state(str(folder / "checkpoint"))
        script.write()
        script.accelerator.end_training()


CASES: dict[str, Callable[[Path], None]] = {
    case.__name__: case
    for case in (
        *(straight, resumed, repeated, counted, declared_main, undeclared_main, failed),
        *(measured, measured_resumed),
    )
}

if __name__ == "__main__":
    have_nobody_send()
    base = Path(sys.argv[1])
    call_in_fork(lambda: terminated(base / "terminated"), base / "terminated")
    for name in sys.argv[2:]:
        CASES[name](base / name)
        assert not dist.is_initialized(), "accelerate has ended the group"
