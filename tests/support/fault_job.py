"""A job of real ranks under torchrun, and what a test has to know of it while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from otel_train.bridge import HistoryRow
from otel_train.catalogue import rows
from otel_train.ring import Kind, RingReader, ring_files
from otel_train.smoke.child_process import running_process
from tests.support.environment import clean_environment
from tests.support.fault_ranks import picks
from tests.support.stack_programs import ROOT
from tests.support.torchrun import ONE_NODE, torchrun
from tests.support.waiting import wait_until

RANKS = 2
PROGRAM = ("-m", "tests.support.fault_ranks")
Window = tuple[int, int]
"""From and to, of the monotonic clock, ns."""


class Job:
    """A job that was started.

    Args:
        run_id: Its run.
        home: Where its ranks write.
        rings: Its ring directory.
        ranks: Those that have their rings there.
        process: torchrun.
    """

    def __init__(
        self, run_id: str, home: Path, rings: Path, ranks: Sequence[int], process: subprocess.Popen[bytes]
    ) -> None:
        self.run_id = run_id
        self.home = home
        self.rings = rings
        self.ranks = ranks
        self.process = process

    @property
    def log(self) -> Path:
        """The output of torchrun and the ranks."""
        return self.home / "train.log"

    def lines(self, rank: int | None = None) -> list[tuple[int, int, int]]:
        """Return of each step so far, by the node's first rank unless told another: its number, when it began and how
        long its work took; by the monotonic clock, ns.
        """
        path = self.home / f"rank{self.ranks[0] if rank is None else rank}.times"
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1].splitlines()
        return [(int(step), int(began), int(took)) for step, began, took in map(str.split, whole)]

    def steps_within(self, window: Window) -> list[int]:
        """Return the steps that began in a window."""
        begin, end = window
        return [step for step, began, _ in self.lines() if begin <= began <= end]

    def step(self) -> int:
        """Return the last step that the node's first rank has ended."""
        lines = self.lines()
        return lines[-1][0] if lines else 0

    def reach(self, step: int) -> None:
        """Wait until that step has ended."""
        wait_until(lambda: self.step() >= step or self._over(), 120, f"step {step}", log=self.log)
        assert self.step() >= step, self.log.read_text()

    def go_on(self, steps: int) -> None:
        """Wait for so many more steps."""
        self.reach(self.step() + steps)

    def _over(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> int:
        """Tell the ranks to stop, wait for their end, and return the number of steps."""
        (self.home / "stop").touch()
        return self.end()

    def end(self, code: int = 0) -> int:
        """Wait until the ranks have ended and return the number of steps that were made."""
        wait_until(self._over, 120, "the job's end", log=self.log)
        assert self.process.returncode == code, self.log.read_text()
        return self.step()

    def close_seconds(self, rank: int) -> float:
        """Return how long a rank waited in `close`."""
        return float(json.loads((self.home / f"rank{rank}.close").read_text()))

    def ring(self, rank: int = 0) -> RingReader:
        """Return a rank's newest ring."""
        return RingReader([path for path in ring_files(self.rings) if path.name.startswith(f"rank{rank:05d}-")][-1])

    def recorded(self) -> list[int]:
        """Return the steps of the cluster's records in rank 0's ring, which must not have wrapped."""
        return [record.step for record in self.ring().read(0, sys.maxsize)[0] if record.kind is Kind.CLUSTER]

    def catch_up(self) -> None:
        """Wait until all that is recorded by now has been acknowledged."""
        readers = [self.ring(rank) for rank in self.ranks]
        ends = [reader.progress.written for reader in readers]
        wait_until(
            lambda: all(reader.cursor.position >= end for reader, end in zip(readers, ends, strict=True)),
            60,
            "the sidecar's catching up",
            log=self.rings / "sidecar.log",
        )

    def sidecars(self) -> list[int]:
        """Return the processes that serve the job's rings."""
        return [pid for pid in _pids() if {"otel_train.sidecar", str(self.rings)} <= set(_command(pid))]

    def sidecar(self) -> int:
        """Wait for the sidecar and return its pid."""
        found: list[int] = []

        def is_one() -> bool:
            found[:] = self.sidecars()
            return len(found) == 1

        wait_until(is_one, 60, "one sidecar", log=self.log)
        return found[0]

    def kill_sidecar(self) -> None:
        """End the sidecar with kill -9, and wait until it is gone: till then it could be taken for the next one."""
        pid = self.sidecar()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in self.sidecars(), 60, "the killed sidecar's end", log=self.log)

    def await_sidecars_end(self) -> None:
        """Wait until the sidecar has sent everything and left."""
        wait_until(lambda: not self.sidecars(), 60, "the sidecar's end", log=self.rings / "sidecar.log")


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _command(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


@contextlib.contextmanager
def running_job(
    home: Path,
    target: str,
    *arguments: str,
    rings: Path | None = None,
    program: Sequence[object] = PROGRAM,
    within: Sequence[str] = (),
    nodes: Sequence[str] = ONE_NODE,
    ranks: Sequence[int] = range(RANKS),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Job]:
    """Run a job whose sidecar sends to a receiver; nothing of it is left at the end.

    Args:
        home: A folder to be made for it, and the run's name.
        target: The receiver.
        *arguments: Of the program.
        rings: The ring directory; a folder at home when None.
        program: The ranks' program; it gets `home` and the arguments.
        within: A command that runs another one on the job's node.
        nodes: torchrun's options about nodes.
        ranks: Those that run on this node.
        environment: Of the ranks and the sidecar besides.
    """
    home.mkdir()
    rings = rings or home / "rings"
    variables = {
        "PYTHONPATH": str(ROOT),
        "OTEL_EXPORTER_OTLP_ENDPOINT": target,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
        "OTEL_TRAIN_RUN_ID": home.name,
        "OTEL_TRAIN_RING_DIR": str(rings),
        **(environment or {}),
    }
    command = [*within, *torchrun(len(ranks), *program, home, *arguments, options=tuple(nodes))]
    with running_process(command, home / "train.log", clean_environment(**variables)) as process:
        job = Job(variables["OTEL_TRAIN_RUN_ID"], home, rings, ranks, process)
        try:
            yield job
        finally:
            if job.sidecars():
                # First the ranks, which would start it again.
                process.terminate()
                process.wait(60)
                for pid in job.sidecars():
                    os.kill(pid, signal.SIGKILL)


def assert_each_once(
    history: Sequence[HistoryRow], steps: Sequence[int], count: Callable[[int, int], int] = picks, ranks: int = RANKS
) -> None:
    """Hold a run's rows, as wandb's files have them, to its steps: each once, in order, with its values, whole."""
    arrived = [row.values[rows.STEP.wandb_key] for row in history]
    assert (set(steps) - set(arrived), [step for step, times in Counter(arrived).items() if times > 1]) == (set(), [])
    assert arrived == list(steps)
    assert [row.values["train/loss"] for row in history] == list(steps)
    expected = [sum(count(step, rank) for rank in range(ranks)) for step in steps]
    assert [row.values[rows.PICKS.wandb_key] for row in history] == expected
    ordinals = [row.ordinal for row in history]
    assert ordinals == sorted(set(ordinals))
    assert not [row.values[rows.STEP.wandb_key] for row in history if row.values.get("telemetry/partial")]


def of_steps(history: Sequence[HistoryRow], steps: Sequence[int]) -> list[HistoryRow]:
    """Return the rows of some steps."""
    return [row for row in history if row.values.get(rows.STEP.wandb_key) in steps]
