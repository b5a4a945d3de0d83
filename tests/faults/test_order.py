"""A collector with a backlog for the bridge is started again: it sends requests in another order than it got them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub

from otel_train.bridge import Bridge, BridgeConfig, read_run
from otel_train.bridge.request_store import RequestStore
from otel_train.bridge.wandb_rows import STEP_KEY
from tests.support.otlp_endpoint import running_endpoint
from tests.support.pipeline import Pipeline
from tests.support.step_requests import step_request

pytestmark = pytest.mark.faults
STEPS = 6
EACH_ALONE = "--config=yaml:exporters::otlp/bridge::sending_queue::batch::min_size: 1"
"""Has the collector send small requests as it got them, as it does large ones."""


@pytest.mark.parametrize("restarts", [1, 2])
def test_restarted_collector_keeps_order(tmp_path: Path, restarts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request that was in flight at a restart, be it in order, comes after all others."""

    def slowly(keep: Callable[..., Any]) -> Callable[..., Any]:
        """Have requests kept after a pause."""

        def kept(*arguments: Any) -> Any:
            time.sleep(0.8)
            return keep(*arguments)

        return kept

    with running_endpoint() as endpoint:
        pipeline = Pipeline(tmp_path, endpoint)
        try:
            pipeline.collector.command = [*pipeline.collector.command, EACH_ALONE]
            pipeline.start_collector()
            with grpc.insecure_channel(pipeline.target.removeprefix("http://")) as channel:
                stub = MetricsServiceStub(channel)  # type: ignore[no-untyped-call]
                for step in range(1, STEPS + 1):
                    stub.Export(step_request(step, {"loss": step / 2}, number=step), timeout=30)
                    time.sleep(0.5)  # longer than the batches' time: each is a request of its own
            for _ in range(restarts):
                pipeline.collector.stop()
                pipeline.start_collector()
            # As a long backlog: what comes last comes later than a bridge waits for steps without numbers.
            monkeypatch.setattr(RequestStore, "_store", slowly(RequestStore._store))
            state, address = pipeline.bridge.state, pipeline.bridge.address
            config = BridgeConfig(state=state, listen=address, token=pipeline.token, linger=0)
            with Bridge(config):
                assert len(pipeline.rows("run", STEPS)) == STEPS
        finally:
            pipeline.stop()
    assert [row.values[STEP_KEY] for row in read_run(state, "run")] == list(range(1, STEPS + 1))
