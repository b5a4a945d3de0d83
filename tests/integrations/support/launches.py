"""Run jobs under launchers of all kinds, end them in some way, and count what arrives of what they recorded.

    python -m tests.integrations.support.launches [LAUNCHER…]

prints the rows of the table "Launchers" in docs/reliability.md. Needs what `make test-integrations` has made. What no
test runs needs more: `uv pip install --python .venv-launch/bin/python distributed==2026.8.0 pyspark==4.3.0` and Java.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from otel_train.catalogue import cluster_name
from otel_train.ring import Kind, RingReader, is_served, ring_files
from otel_train.testing import OtlpReceiver
from tests.integrations.jobs.launched_job import LAST, RANKS
from tests.integrations.support.loader_job import JOBS, interpreter
from tests.support.ports import free_port
from tests.support.torchrun import ONE_NODE, rank_environment
from tests.support.waiting import wait_until

SECONDS = 400
LOSS = cluster_name("train/loss")
MEETS = ("-m", "torch.distributed.run", *ONE_NODE, f"--nproc-per-node={RANKS}")


@dataclass(frozen=True, slots=True)
class Launcher:
    """Way to start the ranks of a job."""

    title: str
    environment: str
    """Name of the file of requirements."""
    before: tuple[str, ...] = ()
    """Words of the command before the interpreter."""
    options: tuple[str, ...] = ()
    """Of the interpreter."""
    by_hand: bool = False
    """Whether no test runs it."""
    outlives: bool = False
    """Whether the process that starts the ranks goes on after their end."""
    ways: tuple[str, ...] = ("normal", "raised", "killed", "terminated")


LAUNCHERS = {
    "torchrun": Launcher("torchrun", "torch", options=MEETS),
    "spawn": Launcher("torch.multiprocessing.spawn", "torch", outlives=True),
    "mpirun": Launcher(
        "mpirun (Open MPI)", "torch", ("mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(RANKS))
    ),
    "ray": Launcher("Ray Train", "launch", outlives=True, ways=("normal", "raised", "retried", "terminated")),
    "lightning": Launcher("Lightning, started by the script", "torch"),
    "notebook": Launcher("accelerate's notebook_launcher", "torch", outlives=True),
    "dask": Launcher("dask", "launch", outlives=True, by_hand=True),
    "spark": Launcher("Spark's TorchDistributor", "launch", outlives=True, by_hand=True),
}
WAYS = {
    "normal": "its own end",
    "raised": "an exception in one rank",
    "killed": "kill -9 of one rank",
    "retried": "kill -9 of one rank, retried (`max_failures`)",
    "terminated": "SIGTERM to the launcher",
}
"""What happens; the last one is sent from outside."""


@dataclass(frozen=True)
class Launched:
    """What a job has left."""

    title: str
    """The launcher's."""
    folder: Path
    receiver: OtlpReceiver | None = None
    """Where its rows and those of other jobs arrive."""

    @cached_property
    def rings(self) -> list[RingReader]:
        """Rings of all ranks and attempts."""
        return [RingReader(path) for path in ring_files(self.folder / "rings")]

    @property
    def runs(self) -> set[str]:
        """Ids of its runs."""
        return {ring.identity.run_id for ring in self.rings}

    @property
    def attempts(self) -> set[int]:
        """Attempts of them."""
        return {ring.identity.attempt for ring in self.rings}

    @property
    def made(self) -> Counter[int]:
        """How often all ranks made a step, from their own notes."""
        counts = [Counter((self.folder / f"rank{rank}.steps").read_text().split()) for rank in range(RANKS)]
        return Counter({int(step): times for step, times in (counts[0] & counts[1]).items()})

    @property
    def is_delivered(self) -> bool:
        """Whether all that is recorded was acknowledged, and the sidecar has left."""
        left = [ring.progress.written - ring.cursor.position for ring in self.rings]
        return not any(left) and not is_served(self.folder / "rings")

    @property
    def recorded(self) -> dict[tuple[str, int], int]:
        """Step of each row of the cluster in the rings that all ranks made, by instance and time."""
        made = self.made
        return {
            (f"{ring.identity.run_id}/{ring.identity.attempt}/{ring.identity.rank}", record.time_ns): record.step
            for ring in self.rings
            for record in ring.read(0, sys.maxsize)[0]
            if record.kind is Kind.CLUSTER and record.step in made
        }

    @property
    def arrived(self) -> Counter[int]:
        """How often a row of each step has arrived."""
        recorded = self.recorded
        points = self.receiver.points if self.receiver is not None else []
        losses = [(point.instance, point.time_ns) for point in points if point.name == LOSS]
        return Counter(recorded[row] for row in losses if row in recorded)

    def counts(self) -> tuple[int, int, int, int]:
        """Return how many rows were recorded, have arrived, arrived twice, and are lost of the steps that were made."""
        recorded, arrived = Counter(self.recorded.values()), self.arrived
        return recorded.total(), arrived.total(), (arrived - recorded).total(), (self.made - arrived).total()

    @property
    def row(self) -> str:
        """Its row of the page's table, but for the last cell."""
        return f"| {self.title} | {WAYS[self.folder.name]} | {' | '.join(map(str, self.counts()))} |"


def run_launcher(name: str, root: Path) -> dict[str, Launched]:
    """Run a launcher's jobs with the receiver away until they have ended, and return what each has left, by its way."""
    launcher = LAUNCHERS[name]
    for way in launcher.ways:
        (root / way).mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    together = [launcher.ways] if launcher.outlives else [(way,) for way in launcher.ways]
    try:
        for ways in together:
            _run(name, root, ways, address)
        with OtlpReceiver(address) as receiver:
            launched = [Launched(launcher.title, root / way, receiver) for way in launcher.ways]
            with contextlib.suppress(AssertionError):  # what has not arrived by then counts as lost
                wait_until(lambda: all(one.is_delivered for one in launched), SECONDS)
        return {one.folder.name: one for one in launched}
    finally:
        for pid in (*_ranks(root), *_processes(str(root))):  # first the ranks, which would start their sidecar again
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _run(name: str, root: Path, ways: tuple[str, ...], address: str) -> None:
    """Run some jobs, one after the other, and have each end in its way once the step before is recorded."""
    launcher = LAUNCHERS[name]
    home = Path(tempfile.mkdtemp(prefix="l"))
    variables = rank_environment(
        OTEL_TRAIN_SIDECAR="embedded",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{address}",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(free_port()),
        ACCELERATE_USE_CPU="true",
        RAY_AUTH_MODE="disabled",  # or it leaves a token at home
        RAY_USAGE_STATS_ENABLED="0",
        TMPDIR=str(home),
    )
    if name == "ray":
        variables["SLURM_JOB_ID"] = "43"  # whose name is not the run's: another worker may be elsewhere
    program = [interpreter(launcher.environment), *launcher.options, JOBS / "launched_job.py", name, root, *ways]
    # A shell's command in the background ignores SIGINT, which is how mp.spawn's ranks hear of the end of their parent.
    command = ["env", "--default-signal=INT", *launcher.before, *map(str, program)]
    log = root / f"{ways[0]}.log"
    with log.open("w") as output:
        job = subprocess.Popen(command, env=variables, stdout=output, stderr=output)
    try:
        for way in (way for way in ways if way != "normal"):
            folder = root / way
            wait_until(
                lambda folder=folder: _waits(folder) or job.poll() is not None,  # type: ignore[misc]
                SECONDS,
                f"{name}, {way}: step {LAST}",
                log=log,
            )
            (folder / "go").touch()
            if way == "terminated":
                job.terminate()
        job.wait(SECONDS)
        wait_until(lambda: not _ranks(root), 60, f"{name}: the ranks' end", log=log)
    finally:
        job.kill()
        job.wait()
        shutil.rmtree(home, ignore_errors=True)


def _waits(folder: Path) -> bool:
    """Tell whether all ranks of a job are in the middle of a step and the row of the one before is recorded."""
    if any(not (folder / f"waits{rank}").exists() for rank in range(RANKS)):
        return False
    return LAST in Launched("", folder).recorded.values()


def _processes(word: str) -> Iterator[int]:
    """Yield the processes whose command has a word."""
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with contextlib.suppress(OSError):
                if word in (path / "cmdline").read_text() and int(path.name) != os.getpid():
                    yield int(path.name)


def _ranks(root: Path) -> list[int]:
    """Return the processes that write the rings of jobs."""
    readers = [RingReader(path) for path in root.glob("*/rings/*.ring")]
    return [reader.header.pid for reader in readers if reader.writer_lives]


def main() -> None:
    """Print the rows of some launchers, or of all."""
    for name in sys.argv[1:] or LAUNCHERS:
        with tempfile.TemporaryDirectory() as folder:
            for launched in run_launcher(name, Path(folder)).values():
                print(launched.row, flush=True)


if __name__ == "__main__":
    main()
