"""The collector is away until jobs have ended, sidecars and all: their rings hold what is sent when it is back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.slurm_cluster import SlurmCluster
from tests.support.slurm_outcome import LAST, Outcome, ended, submit
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def outcomes(slurm: SlurmCluster) -> Iterator[dict[str, Outcome]]:
    """Run jobs without a collector, and one with it, whose epilog sends what they all have left."""
    address = f"{slurm.controller.address}:{slurm.free_port()}"
    steps = ("{job}", "--steps", str(LAST))
    impatient = {"OTEL_TRAIN_SEND_TIMEOUT": "2"}
    left = {
        "collector away, normal end": submit(slurm, address, *steps, environment=impatient),
        "collector away, scancel": submit(slurm, address, "{job}", launcher="srun", environment=impatient),
    }
    patient = submit(slurm, address, *steps, environment={"EPILOG": "", "SEND_TIMEOUT": "120"})
    cancelled = left["collector away, scancel"]
    cancelled.reach(LAST)
    cancelled.command("scancel", cancelled.number)
    for job in left.values():
        job.end()
    wait_until(
        lambda: f"{patient.number}.1" in slurm.command("squeue", "--steps", "--format=%i"),
        120,
        "the job's own send",
        log=patient.log,
    )
    with slurm.receiver(int(address.rpartition(":")[2])) as collector:
        patient.end()
        # An epilog sends what its user has on the node, whichever job's.
        submit(slurm, address, program=("-c", "pass"), launcher="srun").end()
        yield {
            name: ended(job, collector) for name, job in {**left, "collector away, send in the job": patient}.items()
        }


@pytest.mark.parametrize(
    ("death", "state"),
    [
        ("collector away, normal end", "COMPLETED"),
        ("collector away, scancel", "CANCELLED"),
        ("collector away, send in the job", "COMPLETED"),
    ],
)
def test_outage_loses_nothing(death: str, state: str, outcomes: dict[str, Outcome]) -> None:
    """What no sidecar could deliver arrives once when the collector is back."""
    outcomes[death].check(death, state)
