"""Start the ranks of a job: under torchrun, or as processes that no launcher ends when one of them has ended."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.environment import clean_environment
from tests.support.hung_processes import output_of
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
ONE_NODE = ("--standalone",)


class Rank(NamedTuple):
    """A rank that no launcher watches."""

    process: subprocess.Popen[bytes]
    log: Path

    def end(self, seconds: float = 120) -> int:
        """Wait for its end, and return its exit code; one that goes on shows what it has printed."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            output = self.log.read_text()
            raise AssertionError(f"{self.log.stem} has not ended after {seconds:g} s:\n{output}") from None


def torchrun(ranks: int, *program: object, options: tuple[str, ...] = ONE_NODE) -> list[str]:
    """Return the command that runs a program with its arguments on so many ranks of this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", *options, f"--nproc-per-node={ranks}"]
    return [*launcher, *map(str, program)]


def rank_environment(**more: str) -> dict[str, str]:
    """Return the environment of ranks whose rings nobody sends, unless told otherwise."""
    return clean_environment(**{"PYTHONPATH": str(ROOT), "OTEL_TRAIN_SIDECAR": "external", **more})


def script(folder: Path, function: Callable[..., None], *arguments: Any) -> Path:
    """Write a script that calls a function, which may stand inside a test and then imports what it needs itself."""
    name = function.__name__
    source = f"from {function.__module__} import {name}\n"
    if "<locals>" in function.__qualname__:
        source = textwrap.dedent(inspect.getsource(function))
    call = f"{name}(*pickle.loads(bytes.fromhex({pickle.dumps(arguments).hex()!r})))"
    path = folder / f"{name}.py"
    path.write_text(f"from __future__ import annotations\n\nimport pickle\n\n{source}\n\n{call}\n")
    return path


def run_torchrun(
    ranks: int, *program: object, options: tuple[str, ...] = ONE_NODE, seconds: float = 200, **environment: str
) -> None:
    """Run a program on so many ranks and wait until all have ended well; a failure shows what they printed."""
    output_of(torchrun(ranks, *program, options=options), rank_environment(**environment), seconds)


@contextmanager
def lone_ranks(ranks: int, program: Path, **environment: str) -> Iterator[list[Rank]]:
    """Run a program as so many ranks that know of each other by torch's variables alone; none outlives the block."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    started = []
    for rank in range(ranks):
        log = program.with_name(f"rank{rank}.log")
        own = rank_environment(**common, RANK=str(rank), **environment)
        with log.open("wb") as output:
            process = subprocess.Popen([sys.executable, str(program)], env=own, stdout=output, stderr=output)
        started.append(Rank(process, log))
    try:
        yield started
    finally:
        for rank_process in started:
            rank_process.process.kill()
            rank_process.process.wait()
