"""Run a measurement in a process of its own: what one section loads, patches or leaves running touches no other."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
ROOT = Path(__file__).parents[1]


def in_fresh_process(
    environment: Mapping[str, str], function: Callable[P, R], *arguments: P.args, **named: P.kwargs
) -> R:
    """Return what `function` returns in a new interpreter.

    Args:
        environment: What is set there, beside this process's own variables without OTel's and wandb's.
        function: A function of a module.
        arguments: Its arguments.
        named: Its named arguments.
    """
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=_set, initargs=(dict(environment),)
    ) as pool:
        return pool.submit(function, *arguments, **named).result()


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return this process's variables without what would send telemetry elsewhere, and those given.

    Bytecode is kept, as it is where a job starts its ranks: else each process compiles its modules anew.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "WANDB_", "TRACEML_"))}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept | {"OMP_NUM_THREADS": "1"} | dict(environment)


def only_of(root: Path) -> dict[str, str]:
    """Return the variables by which a process, and what it starts, import this checkout, wherever they run."""
    return {"PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"}


def output_of_rank(environment: Mapping[str, str], *arguments: str, root: Path = ROOT) -> object:
    """Return what `benchmarks/rank.py` prints.

    Args:
        environment: What is set there.
        arguments: Its command line.
        root: Checkout that it has otel_train from.
    """
    command = [sys.executable, str(ROOT / "benchmarks" / "rank.py"), *arguments]
    its_environment = clean_environment({**environment, **only_of(root)})
    done = subprocess.run(command, env=its_environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def sidecar_left(directory: Path, patience: float = 20.0) -> None:
    """Wait until the sidecars of rings in a directory have ended: what still runs would be in the next figures.

    Raises:
        TimeoutError: One does not end.
    """
    deadline = time.monotonic() + patience
    while any(True for _ in sidecars_of(directory)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the sidecar of {directory} still runs")
        time.sleep(0.05)


def sidecars_of(directory: Path) -> Iterator[int]:
    """Yield the process ids of the sidecars of rings in a directory."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            line = path.read_bytes()
            if b"otel_train.sidecar" in line and str(directory).encode() in line:
                yield int(path.parent.name)


def _set(environment: dict[str, str]) -> None:
    environment_of_run = clean_environment(environment)
    os.environ.clear()
    os.environ.update(environment_of_run)
