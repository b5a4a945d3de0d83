"""A collector may send the points of one collection in several requests: they are one row all the same."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.bridge import Inbox, split_collections
from otel_train.bridge.arrivals import Added
from otel_train.bridge.decode import decode
from otel_train.bridge.row_order import Due
from otel_train.catalogue import cluster_name
from otel_train.catalogue import rows as rows_of_catalogue
from tests.support.step_requests import BASE_NS, split_request, step_request

DUE = Due(settle_ns=1000, linger_ns=0)
TICK = 2_000
"""Nanoseconds between two instruments of a collection."""


def collection(step: int, time_ns: int | None = None) -> ExportMetricsServiceRequest:
    """Return a step as an SDK sends it that stamps each instrument by itself, `train.step` last."""
    request = step_request(step, {"loss": 1 / step, "lr": 0.1}, {"picks": 4 * step})
    return stamped(request, time_ns or BASE_NS + step * 10**9)


def stamped(request: ExportMetricsServiceRequest, time_ns: int, tick: int = TICK) -> ExportMetricsServiceRequest:
    """Give each instrument of a collection a time of its own, that of `train.step` last; return the request."""
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    metrics.sort(key=lambda metric: metric.name)
    for index, metric in enumerate(metrics):
        (point,) = (metric.gauge if metric.WhichOneof("data") == "gauge" else metric.sum).data_points
        point.time_unix_nano = time_ns + index * tick
    return request


def joined(parts: Iterable[ExportMetricsServiceRequest]) -> ExportMetricsServiceRequest:
    """Return one request of several, with a resource for each, as a collector puts them together."""
    request = ExportMetricsServiceRequest()
    for part in parts:
        request.MergeFrom(part)
    return request


def take(inbox: Inbox, request: Any, now_ns: int = 0) -> Added:
    """Have a request stored."""
    decoded = decode(request)
    return inbox.add(decoded.points, now_ns, decoded.stamped_apart)


def rows(inbox: Inbox, now_ns: int = 1) -> list[dict[str, float]]:
    """Return the rows that are made by then; by default within the settle time."""
    while inbox.seal("run", DUE, now_ns):
        pass
    return [row.row for row in inbox.undelivered("run")]


def expected(*steps: int) -> list[dict[str, float]]:
    """Return the rows of steps that follow each other."""
    return [{"train/step": step, "train/attempt": 1, "loss": 1 / step, "lr": 0.1, "picks": 4} for step in steps]


@pytest.mark.parametrize("resources", [False, True], ids=["requests", "resources"])
@pytest.mark.parametrize("order", ["forward", "backward", "any"])
def test_split_collection_is_one_row(order: str, resources: bool, inbox: Inbox) -> None:
    """Whichever part comes first, in requests or resources of their own, the row is whole once all are there."""
    parts = split_request(collection(1))
    parts.sort(key=lambda part: {"forward": 0, "backward": 1, "any": random.Random(part.ByteSize()).random()}[order])
    parts = parts[::-1] if order == "backward" else parts
    added = [take(inbox, part) for part in ([joined(parts)] if resources else parts)]
    assert rows(inbox) == expected(1)
    assert (sum(one.new for one in added), sum(one.duplicates + one.late for one in added)) == (5, 0)


@pytest.mark.parametrize("sealed", [False, True], ids=["before", "after"])
def test_repeated_parts_are_duplicates(sealed: bool, inbox: Inbox) -> None:
    """A part that comes again after a lost answer, before its row is made or after, is nothing new and nothing late."""
    parts = split_request(collection(1))
    for part in parts:
        take(inbox, part)
    made = rows(inbox) if sealed else []
    again = [take(inbox, part) for part in (*parts, joined(parts))]
    assert (sum(one.duplicates for one in again), sum(one.new + one.late for one in again)) == (8, 0)
    assert (made or expected(1)) == rows(inbox) == expected(1)


@pytest.mark.parametrize("order", [1, -1], ids=["forward", "backward"])
@pytest.mark.parametrize("cuts", [[1], [2], [3], [1, 2]], ids=str)
@pytest.mark.parametrize("split", [(1, 2), (2,), (1,)], ids=["both", "second", "first"])
def test_split_repetition_is_no_row(split: tuple[int, ...], cuts: list[int], order: int, inbox: Inbox) -> None:
    """What an SDK sends again at its end is no further row, and nothing late, where the one or the other was cut."""
    for time in (1, 2):
        for part in cut(collection(1, BASE_NS + time * 10**9), cuts if time in split else [])[::order]:
            added = take(inbox, part)
    assert (rows(inbox), added.duplicates > 0, added.late) == (expected(1), True, 0)
    for part in cut(collection(2, BASE_NS + 3 * 10**9), cuts):
        take(inbox, part)
    assert rows(inbox) == expected(1, 2)


def test_parts_of_close_steps_stay_apart(inbox: Inbox) -> None:
    """Of steps a fraction of a millisecond apart each takes the parts that are nearest, and no series twice."""
    parts = [cut(collection(step, BASE_NS + step * 300_000), [2]) for step in (1, 2)]
    for part in [part for both in zip(*parts, strict=True) for part in both]:
        take(inbox, part)
    assert rows(inbox) == expected(1, 2)


def test_new_values_of_step_make_row(inbox: Inbox) -> None:
    """What an SDK sends between two steps is a row where a value is another one, in whichever part that comes."""
    take(inbox, collection(1))
    for part in cut(collection(2, BASE_NS + 5 * 10**9), [3]):
        for metric in (metric for scope in part.resource_metrics for metric in scope.scope_metrics[0].metrics):
            if metric.name == rows_of_catalogue.STEP.name:
                metric.gauge.data_points[0].as_int = 1
        take(inbox, part)
    assert [row["loss"] for row in rows(inbox)] == [1, 0.5]


@pytest.mark.parametrize("order", [1, -1], ids=["forward", "backward"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_new_value_of_split_repetition_makes_row(size: int, order: int, inbox: Inbox) -> None:
    """A single new value makes a row, though the part with `train.step` came before it and had nothing new."""
    take(inbox, collection(1))
    again = collection(1, BASE_NS + 5 * 10**9)
    (loss,) = (one for one in again.resource_metrics[0].scope_metrics[0].metrics if one.name == cluster_name("loss"))
    loss.gauge.data_points[0].as_double = 9
    added = [take(inbox, part) for part in cut(again, [size])[::order]]
    made = rows(inbox, DUE.settle_ns + 1)
    assert [(row["train/step"], row["loss"]) for row in made] == [(1, 1), (1, 9)]
    assert sum(one.late for one in added) == 0


def test_sidecar_is_taken_at_its_word(inbox: Inbox) -> None:
    """A sidecar gives a step's points one time: what lies beside another step's, after a split, is not that step's."""
    request = collection(1)
    request.resource_metrics[0].scope_metrics[0].scope.name = "otel_train"
    for part in split_request(request):
        take(inbox, part)
    assert rows(inbox) == []


@pytest.mark.parametrize("resources", [False, True], ids=["requests", "resources"])
def test_parts_that_are_looked_at_are_bounded(resources: bool, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender of very many times within a tick has its parts wait by themselves: a request costs a bounded time."""
    monkeypatch.setattr(split_collections, "MOST_LOOKED_AT", 0)
    parts = split_request(collection(1))
    assert sum(take(inbox, part).new for part in ([joined(parts)] if resources else parts)) == 5
    assert rows(inbox) == []


@pytest.mark.parametrize(("most", "whole"), [(7, False), (8, True)])
def test_waiting_parts_are_read_within_bound(
    most: int, whole: bool, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the parts that wait for a step each is looked at once and read once, and none beyond the bound."""
    monkeypatch.setattr(split_collections, "MOST_LOOKED_AT", most)
    for part in split_request(collection(1)):
        take(inbox, part)
    assert rows(inbox) == (expected(1) if whole else [])


@pytest.mark.parametrize(("most", "whole"), [(2, False), (4, True)])
def test_step_is_read_within_bound(most: int, whole: bool, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is looked at for each part and read once; a part for which nothing is left waits by itself."""
    monkeypatch.setattr(split_collections, "MOST_LOOKED_AT", most)
    loss, lr, others = cut(collection(1), [1, 1])
    take(inbox, others)
    take(inbox, joined([loss, lr]))
    (row,) = rows(inbox, DUE.settle_ns + 1)
    assert {"loss", "lr"} & row.keys() == ({"loss", "lr"} if whole else {"loss"})


def test_steps_are_looked_at_within_limit(inbox: Inbox) -> None:
    """No more steps are looked at than asked for, be they rows already or not: there may be any number at a time."""
    for step in (1, 2, 3):
        take(inbox, collection(step))
    assert len(rows(inbox)) == 3
    take(inbox, collection(4))
    key = inbox.store.run_key("run")
    assert key is not None
    looked_at = [inbox.store.between(key, 1, 0, 2**62, limit) for limit in (2, 4)]
    assert [([step.step for step in steps], count) for steps, count in looked_at] == [([], 2), ([4], 4)]


@pytest.mark.parametrize("order", [1, -1], ids=["forward", "backward"])
def test_cut_collection_of_many_instruments_is_whole(order: int, inbox: Inbox) -> None:
    """Each series of a step is looked at once for a request, however many parts are compared with it."""
    request = stamped(step_request(1, {f"x{index}": 1.0 for index in range(700)}), BASE_NS, tick=400)
    for part in cut(request, [350])[::order]:
        take(inbox, part)
    assert [len(row) for row in rows(inbox)] == [702]


def cut(request: ExportMetricsServiceRequest, sizes: Sequence[int]) -> list[ExportMetricsServiceRequest]:
    """Return a request cut after so many metrics each time, as a collector with an upper size of batches does."""
    metrics = [part for resource in request.resource_metrics for part in split_request(_alone(resource))]
    parts = []
    for size in (*sizes, len(metrics)):
        parts.append(joined(metrics[:size]))
        metrics = metrics[size:]
    return [part for part in parts if part.resource_metrics]


def _alone(resource_metrics: Any) -> ExportMetricsServiceRequest:
    return ExportMetricsServiceRequest(resource_metrics=[resource_metrics])


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), max_size=12), gap_ns=st.sampled_from([15_000, 300_000, 20_000_000]))
def test_any_cut_gives_same_rows(sizes: list[int], gap_ns: int) -> None:
    """However a collector cuts the collections of steps, also of some that are microseconds apart: the same rows."""
    stream = joined(collection(step, BASE_NS + step * gap_ns) for step in (1, 2, 3, 4))
    with ExitStack() as stack:
        inbox = stack.enter_context(Inbox(Path(stack.enter_context(TemporaryDirectory()))))
        for part in cut(stream, sizes):
            take(inbox, part)
        assert rows(inbox) == expected(1, 2, 3, 4)
