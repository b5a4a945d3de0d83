"""The way of telemetry: the collector, the bridge, and instead of Prometheus an endpoint that keeps all values."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from otel_train.bridge import HistoryRow, read_run, wandb_files
from otel_train.bridge.upload import read_segment
from tests.support import stack_programs as programs
from tests.support.bridge_processes import BridgeProcess
from tests.support.environment import clean_environment
from tests.support.network import Host
from tests.support.otlp_endpoint import Endpoint, running_endpoint
from tests.support.ports import answers, free_port
from tests.support.program import Program
from tests.support.waiting import wait_until

HOST = "127.0.0.1"


class Pipeline:
    """The collector and the bridge, not yet started.

    Args:
        home: Their files.
        endpoint: Where the collector sends all values beside the bridge.
        host: The address that they listen on.
        within: A command that runs another one where that address is.
        bridge_environment: What the bridge's environment has besides.
    """

    def __init__(
        self,
        home: Path,
        endpoint: Endpoint,
        *,
        host: str = HOST,
        within: tuple[str, ...] = (),
        bridge_environment: Mapping[str, str] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._host = host
        self.token = secrets.token_urlsafe()
        self.grpc_port, self.http_port, self._health, bridge_port = (free_port() for _ in range(4))
        self.bridge = BridgeProcess(
            home,
            f"--token={self.token}",
            address=f"{host}:{bridge_port}",
            within=within,
            environment={"PYTHONPATH": str(programs.ROOT), **(bridge_environment or {})},
        )
        configs = [
            f"--config={programs.ROOT}/{name}" for name in ("collector/local.yaml", "tests/faults/collector.yaml")
        ]
        self.collector = Program(
            [*within, str(programs.collector()), *configs],
            home / "collector.log",
            clean_environment(
                FAULTS_HOST=host,
                FAULTS_GRPC_PORT=str(self.grpc_port),
                FAULTS_HTTP_PORT=str(self.http_port),
                FAULTS_HEALTH_PORT=str(self._health),
                OTEL_TRAIN_PROMETHEUS=f"http://{HOST}:{endpoint.http_port}",
                OTEL_TRAIN_BRIDGE=self.bridge.address,
                OTEL_TRAIN_BRIDGE_TOKEN=self.token,
                OTEL_TRAIN_QUEUE_DIR=str(home / "queue"),
            ),
        )

    @property
    def target(self) -> str:
        """Return the collector's address for OTLP over gRPC."""
        return f"http://{self._host}:{self.grpc_port}"

    def start_collector(self) -> None:
        """Start the collector and wait until it serves."""
        self.collector.start()
        health = f"http://{self._host}:{self._health}"
        wait_until(lambda: answers(health), 60, "the collector's start", log=self.collector.log)

    def rows(self, run_id: str, count: int) -> list[HistoryRow]:
        """Wait until the bridge has delivered so many rows of a run, and return those in wandb's files."""
        self.bridge.wait(count, run_id)
        # wandb flushes now and then; which rows are missing then is the caller's to say.
        with contextlib.suppress(AssertionError):
            wait_until(lambda: len(read_run(self.bridge.state, run_id)) >= count, 10, pause=0.2)
        return read_run(self.bridge.state, run_id)

    def exit_code(self, run_id: str) -> int:
        """Have the bridge finish its runs, start it again, and return a run's exit code."""
        time.sleep(2)  # a failure may come after the last row, by ten times as long as the collector holds it
        assert self.bridge.stop() == 0
        self.bridge.start()
        segment = read_segment(wandb_files(self.bridge.state, run_id)[-1])
        assert segment is not None
        return segment.end.exit_code

    def stop(self) -> None:
        self.collector.stop()
        self.bridge.stop()


@contextmanager
def pipeline_on(home: Path, host: Host) -> Iterator[Pipeline]:
    """Run collector and bridge on a host of a test's network.

    Nobody is in the endpoint's place there: that queue grows, and the bridge's does not wait for it.
    """
    pipeline = Pipeline(home, Endpoint(), host=host.address, within=host.within)
    try:
        pipeline.bridge.start()
        pipeline.collector.start()
        yield pipeline
    finally:
        pipeline.stop()


@contextmanager
def running_pipeline(home: Path, **bridge_environment: str) -> Iterator[Pipeline]:
    """Run collector, bridge and endpoint."""
    with running_endpoint() as endpoint:
        pipeline = Pipeline(home, endpoint, bridge_environment=bridge_environment)
        try:
            pipeline.bridge.start()
            pipeline.start_collector()
            yield pipeline
        finally:
            pipeline.stop()
