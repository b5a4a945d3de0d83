"""Two nodes, each with an agent, and a gateway on a host of its own: a link is cut for a minute, and worse with it."""

from __future__ import annotations

import itertools
import secrets
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trustme

from otel_train.bridge import HistoryRow, read_run
from otel_train.catalogue import Metric, rows
from otel_train.render.promql import cluster_series, rank_series
from tests.support import stack_programs as programs
from tests.support.bridge_processes import BridgeProcess
from tests.support.environment import clean_environment
from tests.support.fault_job import Job, assert_each_once, running_job
from tests.support.fault_ranks import picks
from tests.support.network import DEVICE, Host, cut, heal, running_network
from tests.support.ports import answers
from tests.support.program import Program
from tests.support.prometheus import Prometheus, prometheus_command
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]
RUN, RANKS, PACE = "nodes", 4, 0.1
MEASURED = f'{{train_run_id="{RUN}"}}'
OTLP, HEALTH, PROMETHEUS, BRIDGE = 4317, 13133, "127.0.0.1:9090", "127.0.0.1:4400"


@dataclass
class Gateway:
    """The gateway's host, with Prometheus and the bridge.

    Args:
        host: The host.
        home: Their files.
    """

    host: Host
    home: Path
    token: str = field(default_factory=secrets.token_urlsafe)
    """The nodes'."""
    authorities: list[trustme.CA] = field(default_factory=lambda: [trustme.CA(), trustme.CA()])

    def __post_init__(self) -> None:
        bridge_token = secrets.token_urlsafe()
        self.prometheus = Program(
            [*self.host.within, *prometheus_command(self.home, PROMETHEUS)],
            self.home / "prometheus.log",
            clean_environment(),
        )
        self.bridge = BridgeProcess(
            self.home,
            f"--token={bridge_token}",
            address=BRIDGE,
            within=self.host.within,
            environment={"PYTHONPATH": str(programs.ROOT)},
        )
        self.collector = collector(
            self.host,
            "gateway",
            self.home,
            OTEL_TRAIN_GATEWAY_LISTEN=f"{self.host.address}:{OTLP}",
            OTEL_TRAIN_GATEWAY_CERTIFICATE=str(self.home / "certificate.pem"),
            OTEL_TRAIN_GATEWAY_KEY=str(self.home / "key.pem"),
            OTEL_TRAIN_GATEWAY_TOKEN_FILE=str(self.home / "token"),
            OTEL_TRAIN_GATEWAY_HEALTH_PORT=str(HEALTH),
            OTEL_TRAIN_PROMETHEUS=f"http://{PROMETHEUS}",
            OTEL_TRAIN_BRIDGE=BRIDGE,
            OTEL_TRAIN_BRIDGE_TOKEN=bridge_token,
        )
        (self.home / "token").write_text(self.token)
        (self.home / "ca.pem").write_bytes(b"".join(authority.cert_pem.bytes() for authority in self.authorities))
        self.certify(0)

    def certify(self, authority: int) -> None:
        """Give it a certificate that one of the authorities vouches for; both are trusted while one takes over."""
        certificate = self.authorities[authority].issue_cert(self.host.name)
        certificate.private_key_pem.write_to_path(str(self.home / "key.pem"))
        self.served = certificate.cert_chain_pems[0].bytes().decode()
        (self.home / "certificate.pem").write_text(self.served)

    def shows_new_certificate(self) -> bool:
        """Tell whether who connects is shown the newest certificate."""
        fetch = partial(ssl.get_server_certificate, (self.host.address, OTLP), timeout=5)
        return self.host.call(fetch).split() == self.served.split()

    def start(self) -> None:
        """Start all and wait until they serve."""
        self.prometheus.start()
        self.bridge.start()
        self.collector.start()
        self.await_service(f"http://{PROMETHEUS}/-/ready", self.prometheus)
        self.await_service(f"http://127.0.0.1:{HEALTH}", self.collector)

    def await_service(self, url: str, program: Program) -> None:
        """Wait until a program says that it is well."""
        wait_until(lambda: self.host.call(lambda: answers(url)), 60, url, log=program.log, pause=0.5)

    def stop(self) -> None:
        for program in (self.collector, self.bridge, self.prometheus):
            program.stop()

    def samples(self, series: str) -> list[list[float]]:
        """Return the values of each series of the run in Prometheus."""
        query = partial(Prometheus(f"http://{PROMETHEUS}").samples, series)
        return [[value for _, value in samples] for samples in self.host.call(query).values()]


def collector(host: Host, config: str, home: Path, **environment: str) -> Program:
    """Return a collector with one of the configurations as they are shipped."""
    command = [*host.within, str(programs.collector()), f"--config={programs.ROOT}/collector/{config}.yaml"]
    queue = str(home / f"{host.name}-queue")
    log = home / f"{host.name}.log"
    return Program(command, log, clean_environment(OTEL_TRAIN_QUEUE_DIR=queue, **environment))


def agent(node: Host, gateway: Gateway) -> Program:
    """Return a node's agent."""
    return collector(
        node,
        "agent",
        gateway.home,
        OTEL_TRAIN_GATEWAY=f"{gateway.host.name}:{OTLP}",
        OTEL_TRAIN_GATEWAY_CA=str(gateway.home / "ca.pem"),
        OTEL_TRAIN_GATEWAY_TOKEN_FILE=str(gateway.home / "token"),
    )


@dataclass(frozen=True)
class Arrived:
    """What has arrived of a job that is over."""

    steps: list[int]
    """Those that were made."""
    within: list[int]
    """Those that were made while the link was cut."""
    losses: list[list[float]]
    """Samples of the cluster's loss in Prometheus, by series."""
    picks: list[list[float]]
    """Samples of the cluster's picks likewise."""
    of_ranks: Mapping[int, list[list[float]]]
    """Samples of each rank's picks likewise."""
    history: list[HistoryRow]
    """Rows in wandb's files."""
    left: list[int]
    """Records of each rank that nobody has acknowledged."""


@pytest.fixture(scope="module")
def arrived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arrived]:
    """Cut rank 0's node from the gateway, kill that, and renew its certificate, while the nodes train on."""
    home = tmp_path_factory.mktemp("nodes")
    with running_network(["node1", "node2", "gateway"]) as (*nodes, host), ExitStack() as running:
        gateway = Gateway(host, home)
        running.callback(gateway.stop)
        gateway.start()
        for node in nodes:
            program = agent(node, gateway)
            running.callback(program.stop)
            program.start()
        jobs = [start(index, nodes, home, running) for index in range(len(nodes))]
        for job in jobs:
            job.reach(20)
        begin = time.monotonic_ns()
        cut(nodes[0], host)
        time.sleep(15)
        gateway.collector.kill()
        time.sleep(5)
        gateway.collector.start()
        time.sleep(10)
        gateway.certify(1)
        wait_until(gateway.shows_new_certificate, 30, "the new certificate", log=gateway.collector.log, pause=0.5)
        time.sleep(max(0.0, 60 - (time.monotonic_ns() - begin) / 1e9))
        heal(nodes[0], host)
        end = time.monotonic_ns()
        jobs[0].go_on(20)
        steps = list(range(1, jobs[0].stop() + 1))
        assert jobs[1].end() == steps[-1]
        for job in jobs:
            job.await_sidecars_end()
        loss, picked = cluster_series(Metric("train/loss")) + MEASURED, cluster_series(rows.PICKS) + MEASURED
        wait_until(lambda: sum(map(len, gateway.samples(loss))) >= len(steps), 90, "all steps in Prometheus", pause=1)
        state = gateway.bridge.state
        wait_until(lambda: len(read_run(state, RUN)) >= len(steps), 90, "all steps in wandb's file", pause=1)
        of_rank = rank_series(rows.PICKS) + f'{{train_run_id="{RUN}",train_rank="%d"}}'
        readers = [job.ring(rank) for job in jobs for rank in job.ranks]
        yield Arrived(
            steps=steps,
            within=jobs[0].steps_within((begin, end)),
            losses=gateway.samples(loss),
            picks=gateway.samples(picked),
            of_ranks={rank: gateway.samples(of_rank % rank) for rank in range(RANKS)},
            history=read_run(state, RUN),
            left=[reader.progress.written - reader.cursor.position for reader in readers],
        )


def start(index: int, nodes: list[Host], home: Path, running: ExitStack) -> Job:
    """Start a node's two ranks, which meet the others over the network and send to their node's agent."""
    node = nodes[index]
    meeting = [f"--node-rank={index}", f"--master-addr={nodes[0].address}", "--master-port=29500"]
    return running.enter_context(
        running_job(
            home / node.name,
            f"http://127.0.0.1:{OTLP}",
            f"--pace={PACE}",
            within=node.within,
            nodes=[f"--nnodes={len(nodes)}", *meeting],
            ranks=[2 * index, 2 * index + 1],
            environment={"OTEL_TRAIN_RUN_ID": RUN, "GLOO_SOCKET_IFNAME": DEVICE},
        )
    )


def test_cut_keeps_wandb_rows(arrived: Arrived) -> None:
    """Each step has its row once, those that were made without a link among them."""
    assert arrived.within
    assert_each_once(arrived.history, arrived.steps, ranks=RANKS)


def test_cut_keeps_samples(arrived: Arrived) -> None:
    """Each step is in Prometheus once, and counters are what was counted."""
    total = [sum(picks(step, rank) for rank in range(RANKS)) for step in arrived.steps]
    assert arrived.losses == [arrived.steps]
    assert arrived.picks == [list(itertools.accumulate(total))]
    for rank, samples in arrived.of_ranks.items():
        assert [series[-1] for series in samples] == [sum(picks(step, rank) for step in arrived.steps)]


def test_agents_have_everything(arrived: Arrived) -> None:
    """No rank keeps a record that its node's agent did not take."""
    assert arrived.left == [0] * RANKS
