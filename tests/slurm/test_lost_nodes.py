"""A node dies with all its processes and its memory; what its disk holds is sent when it is back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.slurm_cluster import USER, SlurmCluster
from tests.support.slurm_node import BINARIES
from tests.support.slurm_outcome import DEPLOY, LAST, Outcome, ended, points_of, submit

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def outcomes(slurm: SlurmCluster) -> Iterator[dict[str, Outcome]]:
    """Kill rank 0's node under two jobs, of which one starts again, with the collector away until it is back."""
    port = slurm.free_port()
    address = f"{slurm.controller.address}:{port}"
    rings = slurm.local / "lost"
    on_disk = {
        "TASK_PROLOG": str(DEPLOY / "task-prolog.sh"),
        "PROLOG": str(DEPLOY / "prolog.sh"),
        "OTEL_TRAIN_RINGS": str(rings),
        "OTEL_TRAIN_RUN": f"{slurm.local}/run",
        "OTEL_TRAIN_SEND_TIMEOUT": "5",
    }
    node = slurm.nodes[0]
    once = submit(slurm, address, "{job}", launcher="srun", options=("--no-requeue",), environment=on_disk)
    again = submit(slurm, address, "{job}", environment=on_disk)
    for job in (once, again):
        job.reach(LAST)
    node.kill()
    node.lose_memory()
    once.end()
    with slurm.receiver(port) as collector:
        node.start()
        slurm.await_nodes()
        left = rings / str(USER) / str(once.number)
        sent = node.within(BINARIES / "otel-train", "send", left, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{address}")
        assert sent.returncode == 0, sent.stdout + sent.stderr
        outcome = {"node lost": Outcome(once, once.end(), points_of(once, collector))}
        again.reach(LAST, start=2)
        again.stop.touch()
        yield outcome | {"node lost, requeue": ended(again, collector)}


def test_lost_node_is_delivered_later(outcomes: dict[str, Outcome]) -> None:
    """Without a requeue, `otel-train send` on the node that is back sends what the job left on its disk."""
    outcomes["node lost"].check("node lost", "NODE_FAIL", lost=1)


def test_requeue_delivers_lost_node(outcomes: dict[str, Outcome]) -> None:
    """Started again, the job is the same run, and what its first attempt left is sent too."""
    outcomes["node lost, requeue"].check("node lost, requeue", "COMPLETED", lost=1, starts=2)
