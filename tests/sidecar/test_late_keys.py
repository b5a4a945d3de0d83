"""Keys that came late and values that were logged beside the steps, as receivers get them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from otel_train.bridge import BridgeConfig, read_run
from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.catalogue import ATTEMPT_KEY, PARTIAL_KEY, Metric, cluster_name, rows
from otel_train.read.history import History
from otel_train.read.wandb import prepend_older_steps, read_state
from otel_train.ring import Kind
from otel_train.sidecar.feed import RingFeed
from otel_train.testing import OtlpReceiver
from tests.support.rank_ring import SECOND, Rank, serving, time_of
from tests.support.running_bridge import RunningBridge
from tests.support.waiting import wait_until

MILLISECOND = 10**6
STEP_POINTS, ORDINAL = cluster_name(rows.STEP_POINTS.name), cluster_name(rows.STEP_ORDINAL.name)


def with_late(rank: Rank, step: int, kind: Kind, **values: float) -> None:
    """Write a step's record with values under late keys."""
    late = [(rank.ring.add_key(Metric(f"late/{name}")) or 0, 4 * value, 4.0) for name, value in values.items()]
    rank.ring.write(step, time_of(step), kind, [0.0] * rank.ring.geometry.values, late)


def at(receiver: OtlpReceiver, time_ns: int) -> dict[str, Any]:
    """Return the values that have a time stamp, by name."""
    return {point.name: point.value for point in receiver.points if point.time_ns == time_ns}


def test_late_keys_arrive_under_their_steps(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """Each key has a point at the steps that have a value of it and at no others; so have logged values."""
    with serving(tmp_path):
        rank.record(1)
        wait_until(lambda: receiver.values(STEP_POINTS) != [])
        with_late(rank, 2, Kind.CLUSTER, a=0.5)
        with_late(rank, 3, Kind.CLUSTER, b=1.5)
        rank.log(2, time_of(4) - MILLISECOND, e=9.0)
        rank.record(4)
        wait_until(lambda: receiver.values(ORDINAL) == [1, 2, 3, 4, 5])
    keys = ("late/cluster/a", "late/cluster/b", "late/cluster/e")
    times = [*map(time_of, (1, 2, 3)), time_of(4) - MILLISECOND, time_of(4)]
    assert [{key: at(receiver, time)[key] for key in keys if key in at(receiver, time)} for time in times] == [
        {}, {keys[0]: 0.5}, {keys[1]: 1.5}, {keys[2]: 9.0}, {},
    ]  # fmt: skip
    assert [at(receiver, time)[rows.STEP.name] for time in times] == [1, 2, 3, 2, 4]
    logged = at(receiver, times[3])
    assert logged == {keys[2]: 9.0, rows.STEP.name: 2, ORDINAL: 4, STEP_POINTS: 3}
    assert at(receiver, time_of(4))[cluster_name(rows.PICKS.name)] == 5  # 1 and 4; the others had none


def test_own_late_values_arrive(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A rank's own late values are sent with its steps, its logged ones whatever the interval is."""
    rank = Rank(tmp_path, rank=1)
    with_late(rank, 1, Kind.RANK, a=0.5)
    for step in (2, 3):
        rank.log(step, time_of(step) + MILLISECOND, Kind.RANK, e=step)
    rank.ring.close(3, 0)
    with serving(tmp_path, rank_interval=1000.0):
        wait_until(lambda: receiver.values("late/e") == [2, 3])
    assert receiver.values("late/a") == [0.5]


def test_delivered_logs_are_not_sent_again(rank: Rank) -> None:
    """A sidecar that starts after the end sends the last logged values, which no step follows, but not once more."""
    rank.record(1, kind=Kind.RANK)
    rank.record(1)
    rank.log(1, time_of(2), Kind.RANK, e=5.0)
    first = RingFeed(rank.ring.path, 0.0)
    batch = first.next()
    assert batch is not None
    first.commit(batch)
    rank.ring.close(1, time_of(2))
    second = RingFeed(rank.ring.path, 0.0)
    assert not second.drained
    batch = second.next()
    assert batch is not None
    assert batch.metrics is not None
    assert "late/e" in batch.metrics.names
    second.commit(batch)
    third = RingFeed(rank.ring.path, 0.0)
    assert (third.drained, third.next()) == (True, None)


def test_delivered_end_is_drained(rank: Rank) -> None:
    """A job that ends with a log is delivered once, with its last step, and a sidecar that begins anew sees that."""
    for step in (1, 2):
        rank.record(step, kind=Kind.RANK)
        rank.record(step)
    rank.log(2, time_of(3), Kind.RANK, e=5.0)
    rank.log(2, time_of(4), e=6.0)
    rank.ring.close(2, time_of(4))
    feed, names = RingFeed(rank.ring.path, 1000.0), list[str]()
    while (batch := feed.next()) is not None:
        names += batch.names
        feed.commit(batch)
    assert {"late/e", "late/cluster/e"} <= set(names)
    assert (rank.reader.cursor.rank_time_ns, rank.reader.cursor.logged_time_ns) == (time_of(2), time_of(4))
    again = RingFeed(rank.ring.path, 1000.0)
    assert (feed.drained, again.drained, again.next()) == (True, True, None)


def test_totals_leave_logged_values_out(rank: Rank) -> None:
    """Sidecars that go on one after the other have the totals of one from the beginning: logged values add nothing."""
    rank.record(1, 2, kind=Kind.RANK)
    rank.log(2, time_of(2) + 1, Kind.RANK, e=5.0)
    rank.record(1)
    rank.log(1, time_of(2) - MILLISECOND, e=7.0)
    rank.record(2)
    feed = RingFeed(rank.ring.path, 0.0)
    feed.limit = 2
    batches = 0
    while (batch := feed.next(live=False)) is not None:
        feed.commit(batch)
        feed = RingFeed(rank.ring.path, 0.0)
        feed.limit = 1
        batches += 1
    picks = rank.layout.offsets[rows.PICKS.name]
    totals = rank.reader.cursor.totals
    assert (batches > 3, totals[picks], totals[rank.layout.sums + picks]) == (True, 3.0, 3.0)


def test_logged_row_has_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A logged value is one row in wandb with the step that it belongs to, which a reader joins to that step's."""
    bridge = RunningBridge(BridgeConfig(state=tmp_path / "state", listen="127.0.0.1:0", linger=0))
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{bridge.address}")
        for attempt, first_time in ((7, time_of(0)), (8, time_of(100))):
            rings = tmp_path / f"rings{attempt}"
            rings.mkdir()
            rank = Rank(rings, first_time=first_time, attempt=attempt)
            for step in (3, 4, 5) if attempt == 7 else (4, 5):
                rank.record(step, kind=Kind.RANK)
                if step == 5:
                    rank.log(4, first_time + 5 * SECOND - MILLISECOND, e=attempt)
                rank.record(step)
            rank.ring.close(5, first_time + 5 * SECOND)
            with serving(rings):
                wait_until(rank.acknowledged)
            bridge.wait(4 if attempt == 7 else 7)
    finally:
        bridge.stop()
    written = read_run(bridge.state, "run")
    steps = [(row.values[ATTEMPT_KEY], row.values[STEP_KEY], row.values.get("late/e")) for row in written]
    assert steps == [(7, 3, None), (7, 4, None), (7, 4, 7), (7, 5, None), (8, 4, None), (8, 4, 8), (8, 5, None)]
    assert written[2].values.keys() == {ATTEMPT_KEY, STEP_KEY, "late/e"}
    assert not any(PARTIAL_KEY in row.values for row in written)
    cluster = read_state(bridge.state, "run").cluster
    assert (list(cluster.steps), list(cluster.points("late/e"))) == ([3, 4, 5], [(4, 8.0)])
    assert [value for _, value in cluster.points(rows.PICKS.wandb_key)] == [3, 4, 5]
    # Of step 4 a ring has the logged values only: the others are in the files.
    history = History("the rings", "run")
    history.cluster.merge(4, time_of(104), {"late/e": 9.0})
    history.cluster.add(5, time_of(105), {rows.PICKS.wandb_key: 6.0})
    prepend_older_steps(history, bridge.state)
    assert (list(history.cluster.steps), list(history.cluster.points("late/e"))) == ([3, 4, 5], [(4, 9.0)])
    assert [value for _, value in history.cluster.points(rows.PICKS.wandb_key)] == [3, 4, 6]
