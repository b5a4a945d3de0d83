"""Tests that run on the ranks of a real job: `@pytest.mark.ranks(2)`, and the test is called on each of two ranks.

All such tests that are asked for run in one job under torchrun, one after the other, each in a process group of its
own, of so many ranks as its mark says or, where it has one, its parameter `world_size`. A test fails where it raised on
a rank. Its parameters reach it there; of fixtures it has `job` only. Larger groups come first, since a rank ends after
the last test that has it; a test with `leaves=True`, in which a rank ends by itself, comes last. With `bare=True` a
test begins without a process group and without torchrun's variables.

What comes of a test is not up to a busy machine: the bounds of its sessions are long, and nobody is to send what they
record, so that no end waits for a sidecar. A test about a bound, or a sidecar, sets it.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import logging
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TextIO

import pytest

from otel_train.ring import Kind, RingReader, ring_files
from tests.support.torchrun import run_torchrun

LAUNCHER = ("GROUP_", "LOCAL_", "MASTER_", "RANK", "ROLE_", "TORCHELASTIC_", "WORLD_SIZE")
"""Prefixes of the names of torchrun's variables."""
BOUND = 30.0
"""Seconds that anything in a test waits for, unless it is about that; process groups give up after more."""
SECONDS = 600
"""Seconds that all tests on ranks take at most, in one job."""
_UNSENT = "telemetry: no receiver is named"
"""Begin of a warning that says of each session here that nobody sends."""
Failures = dict[str, dict[int, str]]
"""Errors of each test, by rank; empty where it passed."""


class Planned(NamedTuple):
    """A test that is to run."""

    name: str
    function: Callable[..., None]
    parameters: dict[str, Any]
    world_size: int
    leaves: bool = False
    bare: bool = False


class Job(logging.Handler):
    """The job of a test, as one of its ranks sees it; keeps the warnings that are logged on this rank.

    Args:
        rank: This one.
        world_size: How many there are.
        folder: Of the test, empty at first and the same on all ranks.
        store: Where the ranks meet.
        passed: Called when this rank has done its part of the test.
    """

    def __init__(self, rank: int, world_size: int, folder: Path, store: Any, passed: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self.rank = rank
        self.world_size = world_size
        self.folder = folder
        self.warnings: list[str] = []
        self._store = store
        self._groups = 0
        self._passed = passed

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        if not (text := record.getMessage()).startswith(_UNSENT):
            self.warnings.append(text)

    @contextmanager
    def group(self) -> Iterator[None]:
        """Be a rank of a new default group; one that raises leaves it, so that no peer waits for it."""
        import torch.distributed as dist

        self._groups += 1
        meeting = vars(dist)["PrefixStore"](f"{self.folder.name}/{self._groups}", self._store)
        bound = dt.timedelta(seconds=2 * BOUND)
        dist.init_process_group("gloo", store=meeting, rank=self.rank, world_size=self.world_size, timeout=bound)
        try:
            yield
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    def session(self, name: str = "rings", **options: Any) -> Any:
        """Return a session with long bounds, whose rings are in a folder of that name."""
        import otel_train

        bounds = {"reduction_timeout": BOUND, "close_timeout": BOUND}
        return otel_train.init(ring_dir=self.folder / name, **{**bounds, **options})

    def barrier(self) -> None:
        """Wait for the other ranks."""
        import torch.distributed as dist

        dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, by rank."""
        import torch.distributed as dist

        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def ring(self, rank: int = 0, name: str = "rings") -> RingReader:
        """Return a rank's ring."""
        return RingReader(ring_files(self.folder / name)[rank])

    def cluster(self, key: str = "loss", name: str = "rings") -> dict[int, float]:
        """Return a value over the cluster by step, as rank 0 has recorded it."""
        return cluster_values(self.folder / name, key)

    @property
    def left(self) -> bool:
        """Whether a rank has left."""
        return (self.folder / "left").exists()

    def leave(self) -> NoReturn:
        """End this rank's process at once."""
        (self.folder / "left").touch()
        self._passed()
        os._exit(0)


def cluster_values(directory: Path, key: str) -> dict[int, float]:
    """Return a value over the cluster by step, as rank 0's ring in a directory has it, in the order of its records."""
    reader = RingReader(ring_files(directory)[0])
    records = [record for record in reader.read(0, sys.maxsize)[0] if record.kind is Kind.CLUSTER]
    return {record.step: reader.layout.by_key(*reader.layout.split(record.values))[key] for record in records}


@pytest.fixture(scope="session")
def failures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Failures:
    """Run the session's tests on ranks."""
    planned = []
    for item in request.session.items:
        mark = item.get_closest_marker("ranks")
        if mark is not None and isinstance(item, pytest.Function):
            parameters: dict[str, Any] = dict(item.callspec.params) if hasattr(item, "callspec") else {}
            world_size = parameters.get("world_size") or mark.args[0]
            planned.append(Planned(item.nodeid, item.function, parameters, world_size, **mark.kwargs))
    planned.sort(key=lambda test: (test.leaves, -test.world_size))
    ranks = max(test.world_size for test in planned)
    # The workers of pytest-xdist have the folder above theirs in common: the first one runs the job for all.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ranks"
    folder.mkdir(exist_ok=True)
    with (folder / "trouble").open("a+") as trouble:
        fcntl.flock(trouble, fcntl.LOCK_EX)
        if not (folder / "plan").exists():
            (folder / "plan").write_bytes(pickle.dumps(planned))
            trouble.write("this rank did not get that far")
            try:
                run_torchrun(ranks, "-m", __name__, folder, seconds=SECONDS)
            except Exception as error:  # noqa: BLE001  # it is the failure of each test that it kept from running
                trouble.write(f"; the job: {error}")
        trouble.seek(0)
        missing = trouble.read()
    outcomes = [_outcomes(folder / f"rank{rank}") for rank in range(ranks)]
    return {
        test.name: {
            rank: text for rank in range(test.world_size) if (text := outcomes[rank].get(test.name, missing)) != ""
        }
        for test in planned
    }


@pytest.fixture
def job(request: pytest.FixtureRequest, failures: Failures) -> dict[int, str]:
    """Return what the test raised on its ranks; called there it is given its `Job`."""
    return failures[request.node.nodeid]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have a test on ranks wait for the job of all of them."""
    if item.get_closest_marker("ranks") is not None:
        item.add_marker(pytest.mark.timeout(SECONDS + 60))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Report a test that has run on ranks, instead of calling it here."""
    if pyfuncitem.get_closest_marker("ranks") is None:
        return None
    raised: Any = pyfuncitem.funcargs["job"]
    if raised:
        pytest.fail("\n".join(f"rank {rank}: {text}" for rank, text in raised.items()), pytrace=False)
    return True


def _outcomes(path: Path) -> dict[str, str]:
    # Of a rank that was ended in the middle of it the last line is a part of one.
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return dict(json.loads(line) for line in lines if line.endswith("\n"))


def _call(test: Planned, job: Job) -> str:
    """Call a test and return what it raised."""
    logger = logging.getLogger("otel_train")
    before = dict(os.environ)
    logger.addHandler(job)
    try:
        if test.bare:
            for name in [name for name in os.environ if name.startswith(LAUNCHER)]:
                del os.environ[name]
            test.function(job=job, **test.parameters)
        else:
            with job.group():
                test.function(job=job, **test.parameters)
                if not job.left:
                    job.barrier()
    except Exception as error:  # noqa: BLE001  # the test's process shows it
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    finally:
        logger.removeHandler(job)
        os.environ.clear()
        os.environ.update(before)
    return ""


def _report(outcomes: TextIO, test: Planned, raised: str = "") -> None:
    outcomes.write(json.dumps([test.name, raised]) + "\n")


def main(folder: Path) -> None:
    """Call the planned tests that have this rank."""
    import torch.distributed as dist

    from otel_train.step import job_store
    from tests.support.patience import have_nobody_send

    job_store.PATIENCE = BOUND
    have_nobody_send()
    logging.getLogger("otel_train").setLevel(logging.INFO)
    rank = int(os.environ["RANK"])
    store = vars(dist)["TCPStore"](os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    planned: list[Planned] = pickle.loads((folder / "plan").read_bytes())
    with (folder / f"rank{rank}").open("w", buffering=1) as outcomes:
        for number, test in enumerate(planned):
            if rank >= test.world_size:
                continue
            report = partial(_report, outcomes, test)
            job = Job(rank, test.world_size, folder / str(number), store, report)
            job.folder.mkdir(exist_ok=True)
            report(_call(test, job))
            if job.left:
                os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
