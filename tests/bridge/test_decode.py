"""OTLP requests are decoded into points for wandb, within bounds."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.bridge.decode import MAX_ATTRIBUTES, MAX_ITEMS, Kind, StepId, decode
from otel_train.bridge.intake import MAX_MESSAGE_BYTES
from otel_train.catalogue import MAX_TEXT, cluster_name, rank_name, rows
from tests.support.step_requests import BASE_NS, SECOND, step_request


def test_kind_follows_instrument() -> None:
    """Cumulative monotonic sums become differences, gauges stay as they are, histograms are only counted."""
    request = step_request(
        7, {"loss": 0.5}, {f"{rows.TOKENS.name}|code": 2**60 + 1}, histogram=rows.REUSE_DISTANCE.name
    )
    kinds = {rank_name(p.name) or p.name: (p.kind, p.value, p.modality) for p in decode(request).points}
    assert kinds == {
        rows.STEP.name: (Kind.VALUE, 7, ""),
        "loss": (Kind.VALUE, 0.5, ""),
        rows.TOKENS.name: (Kind.CUMULATIVE, 2**60 + 1, "code"),
        rows.REUSE_DISTANCE.name: (Kind.PRESENT, 0, ""),
        rows.STEP_POINTS.name: (Kind.VALUE, 4, ""),
    }


def test_foreign_points_are_ignored() -> None:
    """Other ranks' points, plain names and another service's resource are accepted and ignored."""
    other, plain, foreign = step_request(1, {"loss": 1.0}, rank=3), step_request(1), step_request(1)
    plain.resource_metrics[0].scope_metrics[0].metrics[1].name = rows.PICKS.name
    del foreign.resource_metrics[0].resource.attributes[2]
    assert (decode(other).points, decode(foreign).points, decode(other).rejected) == ((), (), 0)
    assert [point.name for point in decode(plain).points] == [rows.STEP.name]


@pytest.mark.parametrize(("world_size", "taken"), [(1, 2), (4, 0)])
def test_lone_rank_is_taken(world_size: int, taken: int) -> None:
    """A process that is a job of its own may have any number, as srun gives it; its values are its run's."""
    request = step_request(1, {"loss": 1.0}, rank=3, counted=False)
    request.resource_metrics[0].resource.attributes.add(key="train.world_size").value.int_value = world_size
    assert len(decode(request).points) == taken


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: setattr(r.resource_metrics[0].resource.attributes[2].value, "string_value", "x" * 600),
        lambda r: setattr(r.resource_metrics[0].resource.attributes[0].value, "string_value", "soon"),
        lambda r: setattr(r.resource_metrics[0].resource.attributes[0].value, "string_value", "9" * 19),
        lambda r: setattr(
            r.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0], "as_double", math.inf
        ),
        lambda r: setattr(r.resource_metrics[0].scope_metrics[0].metrics[1].gauge.data_points[0], "time_unix_nano", 0),
        lambda r: setattr(r.resource_metrics[0].scope_metrics[0].metrics[1], "name", cluster_name("n" * 600)),
    ],
    ids=["run id", "attempt", "large attempt", "step", "time", "name"],
)
def test_invalid_points_are_counted(damage: Callable[[Any], None]) -> None:
    """A point or resource that can't be right is named in the answer and never raises."""
    request = step_request(1, {"loss": 1.0})
    damage(request)
    decoded = decode(request)
    assert decoded.rejected >= 1
    assert decoded.reason


def test_sum_needs_its_temporality() -> None:
    """A sum that is neither cumulative nor delta is refused, not taken as one of them: its row would be wrong."""
    request = step_request(1, {"loss": 0.5}, {"tokens": 5})
    (total,) = (metric for metric in request.resource_metrics[0].scope_metrics[0].metrics if metric.HasField("sum"))
    total.sum.ClearField("aggregation_temporality")
    decoded = decode(request)
    assert (decoded.rejected, len(decoded.points)) == (1, 3)
    assert "neither cumulative nor delta" in decoded.reason


@pytest.mark.parametrize(
    ("delays", "steps"),
    [
        ((0, 1000, 2000, 3000), 1),
        ((0, 0, 1000, 2000), 1),  # a clock of microseconds
        ((0, -50_000_000, 90_000_000, 1), 1),
        ((0, 0, 50_000_000, 0), 2),  # a request of two steps that was split
        ((0, 1000, 2000, 100_000_000), 4),
    ],
)
def test_collection_gets_one_time(delays: tuple[int, ...], steps: int) -> None:
    """Points that an SDK stamps a little after each other are of one step; its numbers may be text or doubles."""
    request = step_request(1, {"loss": 0.5, "lr": 0.1})
    (resource_metrics,) = request.resource_metrics
    attempt, rank = resource_metrics.resource.attributes[:2]
    attempt.value.double_value = attempt.value.int_value
    rank.value.string_value = str(rank.value.int_value)
    for delay, metric in zip(delays, resource_metrics.scope_metrics[0].metrics, strict=True):
        metric.gauge.data_points[0].time_unix_nano += delay
    points = decode(request).points
    assert (len(points), len({point.step_id for point in points})) == (4, steps)
    assert points[0].step_id == StepId("run", 1, BASE_NS + SECOND)


def test_collections_put_together_stay_apart() -> None:
    """Of several collections in one resource, as a collector puts them together, each point is of its own step."""
    request = step_request(1, {"loss": 0.5})
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    for metric in step_request(2, {"loss": 0.25}).resource_metrics[0].scope_metrics[0].metrics:
        metrics.add().CopyFrom(metric)
    for index, metric in enumerate(metrics):
        metric.gauge.data_points[0].time_unix_nano += 2000 * (index % 3)
    metrics.add(name=metrics[1].name).gauge.data_points.add(time_unix_nano=BASE_NS + 3 * SECOND, as_int=1)
    times = [BASE_NS + step * SECOND for step in (1, 1, 1, 2, 2, 2, 3)]
    assert [point.step_id.time_ns for point in decode(request).points] == times


def test_sidecar_times_stay() -> None:
    """A sidecar's points have their step's time: those beside another step's, after a split, are not that step's."""
    request = step_request(1, {"loss": 0.5})
    scope = request.resource_metrics[0].scope_metrics[0]
    scope.scope.name = "otel_train"
    for metric in scope.metrics[1:]:
        metric.gauge.data_points[0].time_unix_nano -= 1000
    assert len({point.step_id for point in decode(request).points}) == 2


MIB = 2**20


def many(list_: Any, count: int) -> None:
    """Append so many empty parts to a list of a request."""
    part = type(list_.add())()
    list_.extend([part] * (count - len(list_)))


@pytest.mark.parametrize(
    ("grow", "rejected"),
    [
        (lambda resource, _: many(resource.resource.attributes, 1_000_000), 3),
        (lambda _, metrics: many(metrics[1].gauge.data_points[0].attributes, 1_000_000), 1),
        (lambda resource, _: setattr(resource.resource.attributes[2].value, "string_value", "r" * MIB), 3),
        (lambda _, metrics: setattr(metrics[1], "name", cluster_name("n" * MIB)), 1),
    ],
    ids=["resource", "point", "run id", "name"],
)
def test_oversized_part_is_refused_alone(grow: Callable[[Any, Any], None], rejected: int) -> None:
    """A million attributes or a text of a megabyte costs its resource or point alone, and the reason is a line."""
    request = step_request(1, {"loss": 0.5})
    grow(request.resource_metrics[0], request.resource_metrics[0].scope_metrics[0].metrics)
    request.MergeFrom(step_request(2, {"loss": 0.5}))
    decoded = decode(request)
    assert (decoded.rejected, len(decoded.points)) == (rejected, 6 - rejected)
    assert len(decoded.reason) < 200


def test_bounds_themselves_are_accepted() -> None:
    """A request at the bounds of attributes and characters is accepted."""
    request = step_request(1, {cluster_name("n" * MAX_TEXT)[-MAX_TEXT + 8 :]: 0.5}, run_id="r" * MAX_TEXT)
    many(request.resource_metrics[0].resource.attributes, MAX_ATTRIBUTES)
    assert (decode(request).rejected, len(decode(request).points)) == (0, 3)


@pytest.mark.parametrize(
    "list_of",
    [
        lambda request: request.resource_metrics,
        lambda request: request.resource_metrics[0].scope_metrics,
        lambda request: request.resource_metrics[0].scope_metrics[0].metrics,
        lambda request: request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points,
    ],
    ids=["resources", "scopes", "metrics", "points"],
)
def test_too_many_parts_are_refused(list_of: Callable[[Any], Any]) -> None:
    """A request of a million empty parts, which take two bytes each, is refused before they are read."""
    request = step_request(1, {"loss": 0.5})
    many(list_of(request), MAX_ITEMS)
    decoded = decode(request)
    assert decoded.points == ()
    assert decoded.rejected >= MAX_ITEMS


@pytest.mark.parametrize("sizes", [(MAX_ITEMS, 1), (1, MAX_ITEMS), (MAX_ITEMS // 2, MAX_ITEMS // 2, 1)])
def test_largest_resources_alone_are_refused(sizes: tuple[int, ...]) -> None:
    """What is too much in all, of several senders that a collector puts together, costs the largest ones."""
    request = ExportMetricsServiceRequest()
    for index, size in enumerate(sizes):
        part = step_request(1, {"loss": 0.5}, run_id=str(index))
        many(part.resource_metrics[0].scope_metrics[0].metrics, size + 3)
        request.MergeFrom(part)
    decoded = decode(request)
    left = [index for index, size in enumerate(sizes) if size == 1 or (size < MAX_ITEMS and index)]
    assert {point.step_id.run_id for point in decoded.points} == {str(index) for index in left}
    assert decoded.rejected >= max(sizes)


@pytest.mark.parametrize(
    "fields",
    [(1,), (2, 1), (2, 2, 1), (1, 5, 2, 2, 1), (1, 10, 2, 2, 1)],
    ids=["resources", "scopes", "metrics", "gauge", "exponential histogram"],
)
def test_worst_request_fits_stack_memory(fields: tuple[int, ...]) -> None:
    """A request of empty parts, two bytes sent and up to 130 in memory, fits the memory that the stack gives."""
    compose = Path(__file__).parents[2] / "docker-compose.yml"
    limits = yaml.safe_load(compose.read_text())["services"]["wandb-bridge"]["deploy"]["resources"]["limits"]
    assert limits["memory"] == "1G"
    program = """
        import sys
        from pathlib import Path
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from otel_train.bridge.decode import decode

        def peak():
            (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
            return int(line.split()[1]) * 1024  # unlike getrusage's, not the parent's before

        def part(field, content):
            size, length = len(content), b""
            while size > 127:
                length, size = length + bytes([size & 127 | 128]), size >> 7
            return bytes([field << 3 | 2]) + length + bytes([size]) + content

        size, repeated, *outer = map(int, sys.argv[1:])
        content = part(repeated, b"") * (size // 2 - 20)
        for field in outer:
            content = part(field, content)
        before = peak()
        decode(ExportMetricsServiceRequest.FromString(content))
        print(peak() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(MAX_MESSAGE_BYTES), *map(str, fields)]
    cost = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0 < cost < 640 * MIB  # the rest is for wandb, SQLite, and the requests that wait
