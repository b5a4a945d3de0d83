"""Set up the peers of our step: each set up as its own documentation says, and seen to have done its work.

A peer is a context manager that gives the step that is timed. It takes the 15 headline values a step where it takes
values at all; when the block ends it looks where the values should be, and raises where they are not.
"""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import wandb
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from torch.distributed.device_mesh import init_device_mesh

from benchmarks.measure import Step
from benchmarks.receiver import running_receiver
from benchmarks.tracers import one_logger, traceml
from otel_train.bridge import read_history
from otel_train.catalogue import HEADLINE_KEYS
from tests.support.waiting import wait_until


class _SeenExporter(OTLPMetricExporter):
    """The exporter, which remembers what came of the last export: `force_flush` does not tell."""

    result = MetricExportResult.FAILURE

    def export(self, *arguments: Any, **named: Any) -> MetricExportResult:
        self.result = super().export(*arguments, **named)
        return self.result


@contextlib.contextmanager
def sdk_gauges(endpoint: str) -> Iterator[Step]:
    """Set 15 gauges of the OTel SDK; its reader exports over OTLP/gRPC at its own interval, 60 s."""
    exporter = _SeenExporter(endpoint=endpoint, insecure=True)
    provider = MeterProvider(metric_readers=[PeriodicExportingMetricReader(exporter)])
    meter = provider.get_meter("bench")
    gauges = [meter.create_gauge(key.replace("/", ".")) for key in HEADLINE_KEYS]

    def step(number: int) -> None:
        for gauge in gauges:
            gauge.set(number)

    yield step
    provider.force_flush()
    wait_until(lambda: exporter.result is MetricExportResult.SUCCESS, what="the work of the OTel SDK")
    provider.shutdown()


@contextlib.contextmanager
def prometheus_client() -> Iterator[Step]:
    """Set 15 gauges of prometheus_client, its HTTP server running."""
    from prometheus_client import CollectorRegistry, Gauge, start_http_server  # noqa: PLC0415  # `make bench` only

    registry = CollectorRegistry()
    gauges = [Gauge(key.replace("/", "_"), key, registry=registry) for key in HEADLINE_KEYS]
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)

    def step(number: int) -> None:
        for gauge in gauges:
            gauge.set(number)

    yield step
    page = urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics").read().decode()
    name = HEADLINE_KEYS[-1].replace("/", "_")
    wait_until(
        lambda: any(line.startswith(f"{name} ") for line in page.splitlines()), what="the work of prometheus_client"
    )
    server.shutdown()
    thread.join()


@contextlib.contextmanager
def torchmetrics_means() -> Iterator[Step]:
    """Update 15 MeanMetrics; no `compute`, which a logged step would have besides."""
    from torchmetrics import MeanMetric  # noqa: PLC0415  # `make bench` only

    means = [MeanMetric() for _ in HEADLINE_KEYS]

    def step(number: int) -> None:
        for mean in means:
            mean.update(number)

    yield step
    wait_until(lambda: all(float(mean.compute()) > 0 for mean in means), what="the work of torchmetrics")


@contextlib.contextmanager
def wandb_run(folder: Path) -> Iterator[wandb.Run]:
    """Give an offline run, and see in its file that it has every row that was logged."""
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    run = wandb.init(mode="offline", dir=str(folder), project="bench", settings=settings)
    yield run
    rows = run.step
    run.finish()
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    wait_until(lambda: sum(1 for _ in read_history(file)) == rows, what="the work of wandb")


@contextlib.contextmanager
def wandb_offline(folder: Path) -> Iterator[Step]:
    """Log one dict of 15 values with `run.log`, offline."""
    with wandb_run(folder) as run:
        yield lambda number: run.log(dict.fromkeys(HEADLINE_KEYS, float(number)))


@contextlib.contextmanager
def all_reduce_each(folder: Path) -> Iterator[Step]:
    """Reduce each of 15 values by itself and wait for it with `.item()`, as torchtitan does with its few: one rank."""
    import torch.distributed._functional_collectives as functional  # noqa: PLC0415  # only where a group is made

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    seen = 0.0

    def step(number: int) -> None:
        nonlocal seen
        for _ in HEADLINE_KEYS:
            seen = functional.all_reduce(torch.tensor(float(number)), "sum", mesh).item()

    yield step
    wait_until(lambda: seen > 0, what="the work of all_reduce")
    dist.destroy_process_group()


@contextlib.contextmanager
def every_peer(folder: Path) -> Iterator[dict[str, Step]]:
    """Run all of them in this process."""
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(running_receiver())
        folders = {name: folder / name for name in ("wandb", "one_logger", "traceml")}
        for own in folders.values():
            own.mkdir()
        yield {
            "OTel SDK, 15 gauges": stack.enter_context(sdk_gauges(receiver.endpoint)),
            "prometheus_client, 15 gauges": stack.enter_context(prometheus_client()),
            "torchmetrics, 15 MeanMetric.update": stack.enter_context(torchmetrics_means()),
            "wandb.log offline, 15 values": stack.enter_context(wandb_offline(folders["wandb"])),
            "nv-one-logger, an iteration": stack.enter_context(one_logger(folders["one_logger"])),
            "TraceML, trace_step": stack.enter_context(traceml(folders["traceml"])),
            "15 x all_reduce + .item(), one rank": stack.enter_context(all_reduce_each(folder)),
        }
