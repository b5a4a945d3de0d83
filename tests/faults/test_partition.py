"""Two nodes and the collector's, each a host of its own: the network between them is cut for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from otel_train.bridge import HistoryRow
from tests.support.fault_job import Job, Window, assert_each_once, of_steps, running_job
from tests.support.network import DEVICE, Host, cut, heal, running_network
from tests.support.pipeline import Pipeline, pipeline_on
from tests.support.step_times import compare

pytestmark = pytest.mark.faults
RENDEZVOUS = 29500
CUTS = {"rank 0's node from the collector": 15.0, "the nodes from each other": 5.0}
"""Seconds."""


@dataclass
class Parted:
    """A job on two nodes that has been through both cuts."""

    jobs: list[Job]
    windows: dict[str, Window]
    history: list[HistoryRow]
    steps: int


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parted]:
    """Run the job: one rank on each node."""
    home = tmp_path_factory.mktemp("partition")
    with running_network(["node1", "node2", "sinks"]) as (node1, node2, sinks), ExitStack() as running:
        pipeline = running.enter_context(pipeline_on(home, sinks))
        nodes = [running.enter_context(on_node(node, node1, home, pipeline)) for node in (node1, node2)]
        windows = {}
        for job in nodes:
            job.reach(60)
        for (name, seconds), (one, other) in zip(CUTS.items(), ((node1, sinks), (node1, node2)), strict=True):
            begin = time.monotonic_ns()
            cut(one, other)
            time.sleep(seconds)
            heal(one, other)
            windows[name] = begin, time.monotonic_ns()
            for job in nodes:
                job.go_on(100)
                job.catch_up()
        steps = nodes[0].stop()
        assert nodes[1].end() == steps
        for job in nodes:
            job.await_sidecars_end()
        # Cut from each other the ranks wait in their own collective and make no steps.
        compare(f"cut: {next(iter(CUTS))}", nodes[0], next(iter(windows.values())), windows.values())
        yield Parted(nodes, windows, pipeline.rows("parted", steps), steps)


def on_node(node: Host, first: Host, home: Path, pipeline: Pipeline) -> AbstractContextManager[Job]:
    """Return what runs the node's rank."""
    rank = node.number - 1
    arguments = [f"--node-rank={rank}", f"--master-addr={first.address}", f"--master-port={RENDEZVOUS}"]
    return running_job(
        home / node.namespace,
        pipeline.target,
        within=node.within,
        nodes=["--nnodes=2", *arguments],
        ranks=[rank],
        environment={"OTEL_TRAIN_RUN_ID": "parted", "GLOO_SOCKET_IFNAME": DEVICE},
    )


@pytest.mark.parametrize("fault", CUTS)
def test_cut_loses_no_step(fault: str, parted: Parted) -> None:
    """Records that a node can't send wait in its rings; nodes that were cut from each other go on together."""
    steps = parted.jobs[0].steps_within(parted.windows[fault])
    assert_each_once(of_steps(parted.history, steps), steps)


def test_both_nodes_lose_nothing(parted: Parted) -> None:
    """Every step is in wandb once, and every record of both nodes' rings was acknowledged."""
    assert_each_once(parted.history, range(1, parted.steps + 1))
    rings = [job.ring(rank) for job in parted.jobs for rank in job.ranks]
    assert [ring.cursor.position for ring in rings] == [ring.progress.written for ring in rings]
    assert [ring.cursor.dropped for ring in rings] == [0, 0]
