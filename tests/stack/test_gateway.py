"""Agent and gateway, real collectors with certificates made on the spot: who is refused waits, a bad point is alone."""

from __future__ import annotations

import itertools
import re
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from otel_train.bridge import read_run
from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.catalogue import Metric, cluster_name, rows
from otel_train.render.promql import cluster_series, rank_series
from otel_train.ring import Identity, Kind, RingReader, RingWriter, Schema, ring_path
from otel_train.sidecar.feed import MAX_BYTES
from otel_train.smoke.child_process import running_process
from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.ports import answers, free_port
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.rank_ring import Rank, feeds
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
LOSS = Metric("train/loss")
STEPS = [1, 2, 3, 4, 5]
HOUR = 3600 * 10**9
EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
OTEL_TRAIN = (sys.executable, "-m", "otel_train")
REFUSED = {
    "train.rank=1": ("too_far_ahead", "out of bounds: timestamp is too far in the future"),
    "train.rank=3": ("too_old", "too old sample"),
    "service.name=delta": ("metric", 'invalid temporality and type combination for metric "foreign.delta"'),
    "service.name=duplicate": ("duplicate", "duplicate sample for timestamp"),
    "service.name=overflow": ("too_old", "too old sample"),
    "service.name=empty": ("no_value", "the point has no value"),
}
"""Reason and text by sender, of senders that share one request with ours."""


@dataclass(frozen=True)
class Gateway:
    """A gateway, and where it sends."""

    address: str
    token: Path
    authority: Path
    prometheus: Prometheus
    bridge: Path
    log: Path
    metrics: str
    """URL of its own metrics."""

    def steps(self, run_id: str) -> tuple[list[float], list[int | None]]:
        """Return the steps of a run that Prometheus and the bridge have."""
        samples = self.prometheus.samples(f'{cluster_series(LOSS)}{{train_run_id="{run_id}"}}')
        in_wandb: list[int | None] = [row.values[STEP_KEY] for row in read_run(self.bridge, run_id)]
        return [value for series in samples.values() for _, value in series], in_wandb

    def send(self, request: bytes) -> None:
        """Send it a request."""
        trusted = grpc.ssl_channel_credentials(self.authority.read_bytes())
        with grpc.secure_channel(self.address, trusted) as channel:
            metadata = (("authorization", f"Bearer {self.token.read_text()}"),)
            channel.unary_unary(EXPORT, bytes, bytes)(request, metadata=metadata, timeout=10)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Run Prometheus, a bridge and the gateway in front of them."""
    home, authority = tmp_path_factory.mktemp("gateway"), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(home / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(home / "certificate.pem"))
    certificate.private_key_pem.write_to_path(str(home / "key.pem"))
    (home / "token").write_text(secrets.token_urlsafe())
    listen, bridge, health, metrics = (f"127.0.0.1:{free_port()}" for _ in range(4))
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
            OTEL_TRAIN_GATEWAY_METRICS_PORT=metrics.rpartition(":")[2],
            OTEL_TRAIN_PROMETHEUS=prometheus.url,
            OTEL_TRAIN_BRIDGE=bridge,
            OTEL_TRAIN_BRIDGE_TOKEN=bridge_token,
            OTEL_TRAIN_QUEUE_DIR=str(home / "queue"),
        )
        for name, command in commands.items():
            running.enter_context(running_process(command, home / f"{name}.log", environment))
        wait_until(lambda: answers(f"http://{health}"), 60, "the gateway's start")
        wait_until((home / "bridge" / "address").exists, 60, "the bridge's start")
        log, own = home / "gateway.log", f"http://{metrics}/metrics"
        yield Gateway(listen, home / "token", home / "ca.pem", prometheus, home / "bridge", log, own)


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


def metrics_of(request: ExportMetricsServiceRequest, service: str) -> Any:
    """Return the metrics of a new part of a request, which is a service's."""
    part = request.resource_metrics.add()
    part.resource.attributes.add(key="service.name").value.string_value = service
    return part.scope_metrics.add().metrics


def gauge(request: ExportMetricsServiceRequest, service: str, time_ns: int, value: float | None) -> None:
    """Add a point of a service's gauge."""
    metric = metrics_of(request, service).add(name="foreign")
    metric.gauge.data_points.add(time_unix_nano=time_ns, as_double=value)


def test_bad_points_cost_only_themselves(gateway: Gateway, tmp_path: Path) -> None:
    """Ranks with a wrong clock, a delta counter, a duplicate, a point without value: all of ours is stored."""
    now = time.time_ns()
    begin = now - 2 * len(STEPS) * 10**9
    first, together = ExportMetricsServiceRequest(), ExportMetricsServiceRequest()
    gauge(first, "duplicate", begin, 1.0)
    gateway.send(first.SerializeToString())
    wait_until(lambda: bool(gateway.prometheus.samples('foreign{job="duplicate"}')), 30, "the first of two values")
    for rank, clock in enumerate((0, HOUR, -3 * HOUR, -48 * HOUR, 0)):
        Rank(tmp_path, rank, first_time=begin + clock).record(*STEPS, kind=Kind.BOTH)
    for feed in feeds(tmp_path).values():
        batch = feed.next(MAX_BYTES, live=False)
        assert batch is not None
        assert batch.metrics is not None
        for part in batch.metrics.parts(MAX_BYTES):
            together.MergeFromString(part.body)
    gauge(together, "duplicate", begin, 2.0)
    gauge(together, "duplicate", begin + 10**9, 3.0)
    gauge(together, "empty", now, None)
    gauge(together, "overflow", 2**64 - 1, 1.0)
    delta = metrics_of(together, "delta").add(name="foreign.delta").sum
    delta.aggregation_temporality, delta.is_monotonic = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA, True
    delta.data_points.add(time_unix_nano=now, as_int=1)
    gateway.send(together.SerializeToString())

    def stored(selector: str, label: str) -> dict[str, list[float]]:
        samples = gateway.prometheus.samples(selector, window="72h")
        return {dict(labels)[label]: [value for _, value in series] for labels, series in samples.items()}

    taken = {}
    for name, whole in ((rank_series(rows.STEP), STEPS), (cluster_series(rows.PICKS), itertools.accumulate(STEPS))):
        values = [float(value) for value in whole]
        taken[name + '{train_run_id="run"}'] = {"0": values, "2": values, "4": values}
    wait_until(lambda: {name: stored(name, "train_rank") for name in taken} == taken, 30, "ours", log=gateway.log)
    lines = [
        rf"Refused, of [^:]*{sender}\b[^:]*: {re.escape(text)}.*; metrics: (foreign|.*train.step)"
        for sender, (_, text) in REFUSED.items()
    ]
    # They come last, when all else was sent.
    wait_until(lambda: all(re.search(line, gateway.log.read_text()) for line in lines), 30, "names", log=gateway.log)
    assert stored("{__name__=~'foreign.*'}", "job") == {"duplicate": [1.0, 3.0]}
    with urllib.request.urlopen(gateway.metrics, timeout=10) as answer:
        metrics = answer.read().decode()
    counted = re.findall(r"^otelcol_exporter_refused_metric_points_total{(.*)} \d+$", metrics, re.MULTILINE)
    assert len([series for series in counted if 'metric="train.step"' in series]) == 2
    for sender, (reason, _) in REFUSED.items():
        key, _, name = sender.rpartition("=")
        label = f'{key.replace(".", "_")}="{name}"'
        assert [series for series in counted if label in series and f'reason="{reason}"' in series], sender
    assert 'train_rank="0"' not in "".join(counted)


def test_bad_job_costs_its_own_rows(gateway: Gateway) -> None:
    """Beside text that is not UTF-8, an attempt beyond an integer and 9 MiB, others' steps in one request have rows."""
    now = time.time_ns()
    together = ExportMetricsServiceRequest()

    def job(run_id: str, attempt: str = "1", **attributes: str) -> Any:
        metrics = metrics_of(together, run_id)
        resource = together.resource_metrics[-1].resource.attributes
        for key, text in {"run.id": run_id, "attempt": attempt, **attributes}.items():
            resource.add(key=f"train.{key}").value.string_value = text
        for name in (rows.STEP.name, cluster_name(LOSS.name)):
            metrics.add(name=name).gauge.data_points.add(time_unix_nano=now, as_int=1)

    job("before")
    job("attempt", "9" * 19)
    for _ in range(9):
        job("large", note="x" * 2**20)
    job("text", note="QQ")
    job("lone", rank="3", world_size="1")
    job("other", rank="3", world_size="4")
    job("after", rank="0", world_size="4")
    gateway.send(together.SerializeToString().replace(b"QQ", b"\xff\xff"))
    wandb = {"before": [1], "attempt": [], "text": [], "lone": [1], "other": [], "after": [1]}
    wait_until(lambda: {run: gateway.steps(run)[1] for run in wandb} == wandb, 60, "rows", log=gateway.log)
