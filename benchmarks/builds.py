"""Compare builds and peers that can't share a process: one process each, which take turns in short blocks.

The baseline is the commit that the goals of speed are ratios to. Its files are taken out of the checkout's history, or
are in the folder that `python -m benchmarks --baseline` names.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fresh import ROOT, clean_environment, only_of, sidecar_left
from benchmarks.measure import POOLED, Figures, quantile

BUILDS = ("otel_train", "ledger")
"""Contenders that are builds of otel_train."""
BASELINE = "8a714bc"
"""Commit before the native core."""
GIVEN = "BENCHMARKS_BASELINE"
"""Variable with the folder that is given; none of otel_train's own, which ranks would look at."""
MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One contender, and what its process has of its own."""

    name: str
    """Its name in `benchmarks.contender.CONTENDERS`."""
    root: Path = ROOT
    """Checkout that otel_train, or the peer's set-up, is imported from."""
    environment: Mapping[str, str] = field(default_factory=dict)
    streams: int = 0
    core: int | None = None
    bound_first: bool = False


class Process:
    """A contender that runs.

    Args:
        contender: What to run.
        folder: An empty folder for it.
    """

    def __init__(self, contender: Contender, folder: Path) -> None:
        self.name, self._root = contender.name, contender.root
        self.rings = folder / "rings-4"
        """Rings of its first session, where it is a build of otel_train."""
        options = {
            "contender": contender.name,
            "folder": str(folder),
            "streams": contender.streams,
            "core": contender.core,
            "bound_first": contender.bound_first,
        }
        script = str(ROOT / "benchmarks" / "contender.py")
        self._log = folder / "output.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, script, json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=clean_environment({**contender.environment, **only_of(contender.root)}),
            )
        self.implementation = ""
        """What runs in it of otel_train once it is set up: "native" or "python"; empty for a peer."""

    def set_up(self) -> None:
        """Wait until it is set up.

        Raises:
            RuntimeError: It failed, or has another build than it should have.
        """
        hello = self._answer()
        self.implementation = hello["implementation"]
        if self.name in BUILDS and not Path(hello["file"]).is_relative_to(self._root):
            raise RuntimeError(f"{hello['file']} is not of {self._root}")

    def block(self, before: str, count: int, steps: Sequence[str] = (), **options: bool | int) -> dict[str, list[int]]:
        """Run a block and return the nanoseconds of its steps, by what took turns in it.

        Args:
            before: What each step comes after.
            count: Steps.
            steps: What takes turns; the contender alone where nothing is given.
            **options: Others of `benchmarks.contender.Block`.
        """
        asked = {"before": before, "count": count, "steps": steps or (self.name,), **options}
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer says why it ended
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        times: dict[str, list[int]] = self._answer()
        return times

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("{"):
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"{self.name}: {line}{self._log.read_text(errors='replace')[-4000:]}")
        return json.loads(line)

    def ask_to_end(self) -> None:
        """Ask it to end; it looks first whether its steps did their work."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self) -> None:
        """Wait until it has ended.

        Raises:
            RuntimeError: It failed, or its steps did not do their work.
        """
        assert self._process.stdout is not None
        output = self._process.stdout.read()
        self._process.wait()
        if self._process.returncode:
            raise RuntimeError(f"{self.name}: {output}{self._log.read_text(errors='replace')[-4000:]}")

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def running(contenders: Mapping[str, Contender]) -> Iterator[dict[str, Process]]:
    """Run contenders during the block, one process each; nothing is timed while one of them is set up or ends.

    Raises:
        RuntimeError: One of them failed, or did not do its work.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as name:
        processes: dict[str, Process] = {}
        try:
            for number, (label, contender) in enumerate(contenders.items()):
                folder = Path(name) / str(number)
                folder.mkdir()
                processes[label] = Process(contender, folder)
            for process in processes.values():
                process.set_up()
            yield processes
            for process in processes.values():
                process.ask_to_end()
            for process in processes.values():
                process.end()
            sidecar_left(Path(name))
        finally:
            for process in processes.values():
                process.kill()


def take_turns(
    processes: Mapping[str, Process], before: str, *, rounds: int, steps: int, less: str = "", **options: bool | int
) -> dict[str, Figures]:
    """Time each contender's step alone, in microseconds: a block each in turn, the others waiting meanwhile.

    Args:
        processes: The contenders, by label.
        before: What each step comes after.
        rounds: Rounds that count; one before them warms up.
        steps: Steps of a block.
        less: The contender whose median is what the timing itself costs, taken off all the others round by round.
        **options: Others of `benchmarks.contender.Block`.

    Returns:
        Figures by label, each with a median a round and a 99th percentile for each `POOLED` of them.
    """
    medians: dict[str, list[float]] = {label: [] for label in processes}
    pooled: dict[str, list[list[float]]] = {label: [] for label in processes}
    order = list(processes)
    for number in range(rounds + 1):
        taken: dict[str, list[int]] = {}
        for label in order:
            (taken[label],) = processes[label].block(before, steps, (), **options).values()
        order.append(order.pop(0))
        if not number:
            continue
        empty = quantile(taken[less], 0.5) if less else 0.0
        for label, times in taken.items():
            off = empty if label != less else 0.0
            medians[label].append((quantile(times, 0.5) - off) / 1000)
            if (number - 1) % POOLED == 0:
                pooled[label].append([])
            pooled[label][-1] += [time - off for time in times]
    return {
        label: Figures(medians[label], [quantile(times, 0.99) / 1000 for times in pooled[label]]) for label in processes
    }


class BaselineMissingError(FileNotFoundError):
    """There is no baseline to compare with."""


@contextlib.contextmanager
def baseline() -> Iterator[Path]:
    """Give a folder with the files of the baseline.

    Raises:
        BaselineMissingError: The checkout's history has no such commit, and no folder is given.
    """
    given = os.environ.get(GIVEN)
    if given:
        if not (Path(given) / "otel_train" / "__init__.py").is_file():
            raise BaselineMissingError(f"--baseline must be a checkout of otel_train, got {given}")
        yield Path(given).resolve()
        return
    try:
        command = ["git", "-C", str(ROOT), "archive", BASELINE]
        files = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BaselineMissingError(
            f"the baseline {BASELINE} is not in this checkout's history; give a checkout of it: --baseline FOLDER"
        ) from error
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(files)) as archive:
        archive.extractall(folder, filter="data")
        yield Path(folder)


def training_core() -> int:
    """Return the CPU that the contenders' training threads are bound to: one for all, the last that is free to use."""
    return max(os.sched_getaffinity(0))
