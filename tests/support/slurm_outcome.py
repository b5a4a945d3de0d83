"""What arrived of a job in a test's Slurm, beside what its ranks recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from otel_train.testing import OtlpReceiver, ReceivedPoint
from tests.support.fault_job import PROGRAM
from tests.support.slurm_cluster import SlurmCluster
from tests.support.slurm_job import SlurmJob
from tests.support.slurm_node import BINARIES
from tests.support.stack_programs import ROOT

DEPLOY = ROOT / "deploy" / "slurm"
LAST = 30
"""The step in which something goes wrong, or after which somebody ends a job."""
MEASURED: list[str] = []
"""Lines of the table of deaths, as the tests have measured them."""
LOSS = "train/cluster/loss"
"""The mean over the ranks; that of step n is n."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: SlurmJob
    states: list[str]
    points: list[ReceivedPoint]
    """Those of the cluster's loss."""

    def arrived(self) -> list[list[int]]:
        """Return for each attempt the steps that arrived, as often as they came with another time stamp."""
        attempts: dict[int, list[int]] = {}
        for (instance, _), step in sorted({(p.instance, p.time_ns): int(p.value) for p in self.points}.items()):
            attempts.setdefault(int(instance.split("/")[-2]), []).append(step)
        return [steps for _, steps in sorted(attempts.items())]

    def check(self, death: str, state: str, *, lost: int = 0, starts: int = 1) -> None:
        """Hold it to what all ranks had ended: each step arrived once, all but `lost` at the end of a start."""
        log = self.job.log.read_text() if self.job.log.exists() else ""
        recorded, arrived = self.job.recorded(), self.arrived()
        twice = [[step for step, times in Counter(steps).items() if times > 1] for steps in arrived]
        counts = [len({*range(1, count + 1)} & set(steps)) for count, steps in zip(recorded, arrived, strict=False)]
        cells = [recorded, counts, [sum(map(len, twice))], [sum(recorded) - sum(counts)]]
        MEASURED.append(" | ".join(["", death, *(" + ".join(map(str, cell)) for cell in cells), ""]).strip())
        assert set(self.states) == {state}, log
        assert (len(recorded), len(arrived)) == (starts, starts), log
        assert twice == [[]] * starts
        for count, steps in zip(recorded, arrived, strict=True):
            assert count >= LAST - 1, log
            missing = sorted({*range(1, count + 1)} - set(steps))
            assert missing in [list(range(count - number + 1, count + 1)) for number in range(lost + 1)], log


def submit(
    slurm: SlurmCluster,
    endpoint: str,
    *arguments: str,
    program: Sequence[str] = PROGRAM,
    launcher: str = "torchrun",
    options: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> SlurmJob:
    """Submit a program of Python's with one of the batch files, whose epilog is deploy's unless told otherwise."""
    variables = {
        "EPILOG": str(DEPLOY / "epilog.sh"),
        "OTEL_TRAIN_COMMAND": str(BINARIES / "otel-train"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}",
        **(environment or {}),
    }
    file = DEPLOY / f"{launcher}.sbatch"
    return slurm.submit(file, *program, *arguments, options=options, environment=variables)


def points_of(job: SlurmJob, receiver: OtlpReceiver) -> list[ReceivedPoint]:
    """Return what a receiver has of a job's loss."""
    run_ids = job.run_ids()
    return [point for point in receiver.points if point.name == LOSS and point.instance.rsplit("/", 2)[0] in run_ids]


def ended(job: SlurmJob, receiver: OtlpReceiver) -> Outcome:
    """Wait for a job's end and return what became of it."""
    states = job.end()
    assert len(job.run_ids()) == 1, job.log.read_text()
    return Outcome(job, states, points_of(job, receiver))
