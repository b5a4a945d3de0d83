"""Nodes of an elastic job are lost and come back: torchrun goes on with those that are there, and it stays one run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from otel_train.bridge import HistoryRow
from otel_train.catalogue import rows
from otel_train.ring import Kind, RingReader, ring_files
from otel_train.smoke.child_process import running_process
from tests.support.environment import clean_environment
from tests.support.network import DEVICE, Host, running_network
from tests.support.pipeline import pipeline_on
from tests.support.torchrun import ROOT, script, torchrun
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]
OPTIONS = (
    "--nnodes=1:2",
    "--max-restarts=3",
    "--rdzv-backend=c10d",
    "--rdzv-id=101",
    "--rdzv-conf=last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=8",
)


def train(home: Path, pace: float) -> None:
    """Take steps until told to stop, from the one that was saved last; the loss of step n is n."""
    import os
    import time
    from pathlib import Path

    import torch.distributed as dist

    import otel_train

    dist.init_process_group("gloo")
    saved = Path(home) / "saved"
    step = int(saved.read_text()) if saved.exists() else 0
    with otel_train.init(close_timeout=1.0) as telemetry:
        while not (Path(home) / "stop").exists():
            step += 1
            telemetry.step(step, {"train/loss": float(step)})
            dist.barrier()
            if dist.get_rank() == 0:
                (Path(home) / "saved.new").write_text(str(step))
                (Path(home) / "saved.new").rename(saved)
            time.sleep(pace)
        telemetry.flush()
    dist.destroy_process_group()
    os._exit(0)


@dataclass
class Elastic:
    """The job: nodes that may be started and lost.

    Args:
        home: What the nodes share.
        endpoint: Where their rendezvous is.
        environment: Of their agents and ranks.
    """

    home: Path
    endpoint: str
    environment: dict[str, str]
    disks: list[Path] = field(default_factory=list)
    """Directories of the rings."""

    def start(self, node: Host, running: ExitStack) -> subprocess.Popen[bytes]:
        """Start a node's agent, with a disk that is new."""
        disk = self.home / f"{node.name}-{len(self.disks)}"
        disk.mkdir(mode=0o700)
        self.disks.append(disk / "rings")
        options = (*OPTIONS, f"--rdzv-endpoint={self.endpoint}", f"--local-addr={node.address}")
        command = [*node.within, *torchrun(1, script(disk, train, self.home, 0.1), options=options)]
        environment = self.environment | {"OTEL_TRAIN_RING_DIR": str(self.disks[-1])}
        with (disk / "log").open("wb") as log:
            agent = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        running.callback(agent.wait)
        running.callback(node.kill)
        return agent

    def step(self) -> int:
        """Return the newest step that was saved."""
        saved = self.home / "saved"
        return int(saved.read_text()) if saved.exists() else 0

    def rings(self) -> list[RingReader]:
        """Return the rings of all nodes, by attempt."""
        readers = [RingReader(path) for disk in self.disks for path in ring_files(disk)]
        return sorted(readers, key=lambda reader: reader.identity.attempt)

    def sizes(self) -> list[int]:
        """Return the world size of each attempt."""
        sizes = {reader.identity.attempt: reader.identity.world_size for reader in self.rings()}
        return [sizes[attempt] for attempt in sorted(sizes)]

    def recorded(self) -> list[tuple[int, int]]:
        """Return attempt and step of each of the cluster's records."""
        return [
            (reader.identity.attempt, record.step)
            for reader in self.rings()
            for record in reader.read(0, sys.maxsize)[0]
            if record.kind is Kind.CLUSTER
        ]

    def delivered(self) -> bool:
        """Tell whether all that the rings hold is acknowledged."""
        return all(reader.cursor.position == reader.progress.written for reader in self.rings())

    def go_on(self, attempts: int) -> None:
        """Wait until so many attempts have begun, and the last one has made some steps."""
        wait_until(lambda: len(self.sizes()) >= attempts, 100, f"attempt {attempts}", log=self.disks[-1].parent / "log")
        end = self.step() + 20
        wait_until(lambda: self.step() >= end, 60, f"step {end}", log=self.disks[-1].parent / "log")


@dataclass
class Lost:
    """A job that is over, whose nodes were lost and came back."""

    job: Elastic
    history: list[HistoryRow]


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lost]:
    """Lose rank 0's node, with the agent that named the run, and have it come back empty."""
    home = tmp_path_factory.mktemp("elastic")
    with running_network(["first", "second", "sinks"]) as (first, second, sinks), ExitStack() as running:
        pipeline = running.enter_context(pipeline_on(home, sinks))
        environment = clean_environment(
            PYTHONPATH=str(ROOT),
            GLOO_SOCKET_IFNAME=DEVICE,
            OTEL_EXPORTER_OTLP_ENDPOINT=pipeline.target,
            # Else nobody meets a node that becomes the first: findings/torchrun-node-that-becomes-first-is-never-met.sh
            TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1",
        )
        # Ranks go by the nodes' addresses; the rendezvous is where rank 0 is not.
        job = Elastic(home, f"{second.address}:29400", environment)
        agents = [job.start(node, running) for node in (second, first)]
        job.go_on(1)
        first.kill()
        agents.pop().wait()
        job.go_on(2)
        agents.append(job.start(first, running))
        job.go_on(3)
        (home / "stop").touch()
        assert [agent.wait(60) for agent in agents] == [0, 0], (job.disks[0].parent / "log").read_text()
        # What the lost node's sidecar could not send is on its disk.
        sidecar = [*second.within, sys.executable, "-m", "otel_train", "sidecar", str(job.disks[1])]
        with running_process(sidecar, home / "sidecar.log", environment):
            wait_until(job.delivered, 60, "the delivery of all rings", log=home / "sidecar.log")
        yield Lost(job, pipeline.rows(job.rings()[0].identity.run_id, len(job.recorded())))


def test_lost_node_keeps_run(lost: Lost) -> None:
    """Run and attempts are the same on all nodes, also where rank 0 is another node's, or on one that is new."""
    identities = [reader.identity for reader in lost.job.rings()]
    assert len({identity.run_id for identity in identities}) == 1
    assert identities[0].run_id.startswith("101-")
    assert lost.job.sizes() == [2, 1, 2]
    assert [identity.host for identity in identities if identity.rank == 0] == ["first", "second", "first"]


def test_rows_of_attempts_arrive_once(lost: Lost) -> None:
    """What each attempt recorded is in wandb once, with its values."""
    arrived = [(int(row.values["train/attempt"]), int(row.values[rows.STEP.wandb_key])) for row in lost.history]
    assert sorted(arrived) == sorted(lost.job.recorded())
    assert [row.values["train/loss"] for row in lost.history] == [step for _, step in arrived]


def test_lost_node_costs_one_step(lost: Lost) -> None:
    """Of the steps that were saved all are in some attempt, but the one in which the node was lost."""
    steps = {step for _, step in lost.job.recorded()}
    assert len(set(range(1, lost.job.step() + 1)) - steps) <= 1
