"""Run a bridge in the test's process, with a channel to it."""

from __future__ import annotations

from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub

from otel_train.bridge import Bridge, BridgeConfig, delivered_steps
from tests.support.waiting import wait_until


class RunningBridge:
    """A bridge that runs in this process, and a channel to it.

    Args:
        config: Its configuration.
    """

    def __init__(self, config: BridgeConfig) -> None:
        self.state = config.state
        self.bridge = Bridge(config)
        self.bridge.__enter__()
        self.address = self.bridge.address
        self.channel = grpc.insecure_channel(self.address, compression=grpc.Compression.Gzip)

    def send(self, *requests: ExportMetricsServiceRequest, **call: Any) -> ExportMetricsServiceResponse:
        """Send requests one after the other and return the last answer."""
        stub = MetricsServiceStub(self.channel)  # type: ignore[no-untyped-call]
        answers = [stub.Export(request, timeout=30, **call) for request in requests]
        answer: ExportMetricsServiceResponse = answers[-1]
        return answer

    def wait(self, count: int, run_id: str = "run") -> None:
        """Wait until that many rows of the run are in wandb."""
        wait_until(lambda: delivered_steps(self.state, run_id) >= count, what=f"{count} rows of {run_id}")

    def stop(self) -> None:
        """Stop it gracefully; on a busy machine wandb may take longer than a bridge waits for it."""
        self.channel.close()
        wait_until(self.bridge.stop, what="the end of wandb's runs")
