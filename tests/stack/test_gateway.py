"""Agent and gateway, real collectors with certificates made on the spot: who is refused waits, and loses nothing."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from otel_train.bridge import read_run
from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.catalogue import Metric, rows
from otel_train.render.promql import cluster_series
from otel_train.ring import Identity, Kind, RingReader, RingWriter, Schema, ring_path
from otel_train.smoke.child_process import running_process
from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.ports import answers, free_port
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
LOSS = Metric("train/loss")
STEPS = [1, 2, 3, 4, 5]
OTEL_TRAIN = (sys.executable, "-m", "otel_train")


@dataclass(frozen=True)
class Gateway:
    """A gateway, and where it sends."""

    address: str
    token: Path
    authority: Path
    prometheus: Prometheus
    bridge: Path

    def steps(self, run_id: str) -> tuple[list[float], list[int | None]]:
        """Return the steps of a run that Prometheus and the bridge have."""
        samples = self.prometheus.samples(f'{cluster_series(LOSS)}{{train_run_id="{run_id}"}}')
        in_wandb: list[int | None] = [row.values[STEP_KEY] for row in read_run(self.bridge, run_id)]
        return [value for series in samples.values() for _, value in series], in_wandb


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Run Prometheus, a bridge and the gateway in front of them."""
    home, authority = tmp_path_factory.mktemp("gateway"), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(home / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(home / "certificate.pem"))
    certificate.private_key_pem.write_to_path(str(home / "key.pem"))
    (home / "token").write_text(secrets.token_urlsafe())
    listen, bridge, health = (f"127.0.0.1:{free_port()}" for _ in range(3))
    bridge_token = secrets.token_urlsafe()
    commands = {
        "bridge": [*OTEL_TRAIN, "bridge", f"--listen={bridge}", f"--state={home}/bridge", f"--token={bridge_token}"],
        "gateway": [str(programs.collector()), f"--config={programs.ROOT}/collector/gateway.yaml"],
    }
    with ExitStack() as running:
        prometheus = running.enter_context(running_prometheus(home))
        environment = clean_environment(
            OTEL_TRAIN_GATEWAY_LISTEN=listen,
            OTEL_TRAIN_GATEWAY_CERTIFICATE=str(home / "certificate.pem"),
            OTEL_TRAIN_GATEWAY_KEY=str(home / "key.pem"),
            OTEL_TRAIN_GATEWAY_TOKEN_FILE=str(home / "token"),
            OTEL_TRAIN_GATEWAY_HEALTH_PORT=health.rpartition(":")[2],
            OTEL_TRAIN_GATEWAY_METRICS_PORT=str(free_port()),
            OTEL_TRAIN_PROMETHEUS=prometheus.url,
            OTEL_TRAIN_BRIDGE=bridge,
            OTEL_TRAIN_BRIDGE_TOKEN=bridge_token,
            OTEL_TRAIN_QUEUE_DIR=str(home / "queue"),
        )
        for name, command in commands.items():
            running.enter_context(running_process(command, home / f"{name}.log", environment))
        wait_until(lambda: answers(f"http://{health}"), 60, "the gateway's start")
        wait_until((home / "bridge" / "address").exists, 60, "the bridge's start")
        yield Gateway(listen, home / "token", home / "ca.pem", prometheus, home / "bridge")


@dataclass(frozen=True)
class Agent:
    """An agent's settings; its queue is in its home and outlives it."""

    home: Path
    port: int
    gateway: str

    def running(self, token: Path, authority: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Run it as long as the block."""
        environment = clean_environment(
            OTEL_TRAIN_AGENT_PORT=str(self.port),
            OTEL_TRAIN_AGENT_HEALTH_PORT=str(free_port()),
            OTEL_TRAIN_GATEWAY=self.gateway,
            OTEL_TRAIN_GATEWAY_CA=str(authority),
            OTEL_TRAIN_GATEWAY_TOKEN_FILE=str(token),
            OTEL_TRAIN_QUEUE_DIR=str(self.home / "queue"),
        )
        command = [str(programs.collector()), f"--config={programs.ROOT}/collector/agent.yaml"]
        return running_process(command, self.log, environment)

    @property
    def log(self) -> Path:
        """Its output since its last start."""
        return self.home / "agent.log"

    def send(self, run_id: str) -> None:
        """Let a job's ring be sent by a real sidecar, until the agent has acknowledged all of it."""
        identity = Identity(run_id=run_id, attempt=time.time_ns() // 1_000_000)
        schema = Schema((LOSS, rows.PICKS))
        rings = self.home / "rings"
        rings.mkdir(mode=0o700)
        ring = RingWriter(ring_path(rings, identity), schema, identity)
        begin = time.time_ns() - len(STEPS) * 10**9
        for step in STEPS:
            # Of the mean its total and its count, then the picks.
            ring.write(step, begin + step * 10**9, Kind.CLUSTER, [float(step), 1.0, 2.0])
        ring.close(STEPS[-1], begin)
        environment = clean_environment(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{self.port}")
        with running_process([*OTEL_TRAIN, "sidecar", str(rings)], self.home / "sidecar.log", environment):
            reader = RingReader(ring.path)
            wait_until(lambda: reader.cursor.position == len(STEPS), 60, "the agent's acknowledgement")


@pytest.fixture
def agent(gateway: Gateway, tmp_path: Path) -> Agent:
    """Return the settings of an agent."""
    return Agent(tmp_path, free_port(), gateway.address)


def test_fixed_token_delivers_kept_data(gateway: Gateway, agent: Agent) -> None:
    """A wrong token is refused; the agent's queue keeps the data, and reads the token's file without a restart."""
    token = agent.home / "token"
    token.write_text("guessed")
    with agent.running(token, gateway.authority):
        agent.send("token")
        wait_until(lambda: "refused, keep your data" in agent.log.read_text(), 60, "the refusal")
        time.sleep(2)
        assert gateway.steps("token") == ([], [])
        token.write_text(gateway.token.read_text())
        wait_until(lambda: gateway.steps("token") == (STEPS, STEPS), 60, "the arrival of all steps, once")


def test_fixed_certificate_delivers_kept_data(gateway: Gateway, agent: Agent) -> None:
    """The agent does not trust a gateway that another authority vouches for; its queue outlives its restart."""
    other = agent.home / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with agent.running(gateway.token, other):
        agent.send("certificate")
        wait_until(lambda: "certificate signed by unknown authority" in agent.log.read_text(), 60, "the refusal")
        assert gateway.steps("certificate") == ([], [])
    with agent.running(gateway.token, gateway.authority):
        wait_until(lambda: gateway.steps("certificate") == (STEPS, STEPS), 60, "the arrival of all steps, once")
