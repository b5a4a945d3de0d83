"""What holds of all requests together, whatever is lost, killed or cut between them."""

from __future__ import annotations

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from otel_train.catalogue import rows
from otel_train.otlp.answers import Answer, Verdict
from otel_train.ring import Kind
from otel_train.sidecar.points import LIVE_SUFFIX
from otel_train.sidecar.settings import NAME as SETTING_NAME
from tests.support.otlp_store import Sent, Store
from tests.support.rank_ring import Rank, feeds, sender, time_of

MILLISECOND = 10**6
AWAY = Answer(verdict=Verdict.WAIT, cause="UNAVAILABLE", unanswered=True)
OVERWRITTEN = [*["step"] * 6, "lost", *["step"] * 6]
"""A request whose acknowledgement is lost, and then a part of its records."""


def run(actions: Sequence[str], directory: Path, interval: float, *, alone: bool) -> tuple[Store, list[list[Sent]]]:
    """Let a rank and its sidecar do these things; return the store and the requests that were acknowledged."""
    rank, store = Rank(directory, records=8), Store()
    acknowledged: list[list[Sent]] = []
    rings, sending = feeds(directory, interval), sender(store, directory)
    step = reduced = 0
    logged: list[int] = []
    """The step of each value that was logged and not reduced yet."""

    def reduce() -> None:
        nonlocal reduced
        reduced += 1
        carried = [at for at in logged if at < reduced]
        for number, at in enumerate(carried):
            stamp = time_of(reduced) - (len(carried) - number) * MILLISECOND
            rank.log(at, stamp, a=number, b=reduced)
        del logged[: len(carried)]
        rank.record(reduced)

    for count, action in enumerate((*actions, "look"), start=1):
        if action == "step":
            step += 1
            rank.record(step, kind=Kind.BOTH if alone else Kind.RANK)
            if step - reduced > 4 and not alone:  # the training thread waits for the oldest reduction
                reduce()
        elif action == "reduced" and reduced < step and not alone:
            reduce()
        elif action == "log":
            logged.append(step)
            rank.log(step, time_of(step) + count * MILLISECOND, Kind.BOTH if alone else Kind.RANK, a=step, b=count)
        elif action == "kill":
            rings, sending = feeds(directory, interval), sender(store, directory)
        elif action == "small":
            for feed in rings.values():
                feed.limit = 1
        else:
            store.lose_next = action == "lost"
            before = len(store.requests)
            taken = {"away": 0, "one": 1}.get(action, 1000)  # requests, before the receiver goes away
            store.policy = lambda store, *_, most=before + taken: AWAY if len(store.requests) > most else None
            if sending.send_all(rings):
                acknowledged += store.requests[before:]
            store.lose_next = False
    return store, acknowledged


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(actions=["step", "step", "look", "reduced"], interval=0.0, alone=False)
@example(actions=OVERWRITTEN, interval=0.0, alone=True)
@example(actions=[*OVERWRITTEN, "kill"], interval=0.0, alone=True)
@example(actions=[*OVERWRITTEN[:7], "small", "one", *OVERWRITTEN[7:]], interval=0.0, alone=True)
# Another sidecar goes on, and the ring no longer holds what the one before it knew to be lost.
@example(actions=[*["step"] * 15, "one", "step", "step", "kill", "small"], interval=0.0, alone=False)
# The acknowledgement of logged values is lost, then one of their parts.
@example(actions=[*["step"] * 8, "log", *["step"] * 7, "reduced", "lost", "lost", "step"], interval=0.0, alone=False)
@example(actions=["log", *["step", "log"] * 4, "reduced", "reduced", "kill", "reduced"], interval=3.0, alone=False)
@given(
    actions=st.lists(
        st.sampled_from(
            [*["step"] * 3, "reduced", "reduced", "look", "look", "lost", "away", "one", "kill", "small", "log"]
        ),
        min_size=20,
        max_size=50,
    ),
    interval=st.sampled_from([0.0, 3.0]),
    alone=st.booleans(),
)
def test_series_never_contradicts_itself(actions: list[str], interval: float, alone: bool) -> None:
    """No series has two values at one time, and no request is older than what was taken, for every cut and restart."""
    with tempfile.TemporaryDirectory() as name:
        store, acknowledged = run(actions, Path(name), interval, alone=alone)
    values: dict[tuple[object, int], set[bytes]] = defaultdict(set)
    for point in itertools.chain.from_iterable(store.requests):
        values[point.series, point.time_ns].add(point.point)
    assert {key: points for key, points in values.items() if len(points) > 1} == {}
    newest: dict[str, int] = defaultdict(int)
    for sent in acknowledged:
        times = defaultdict(list)
        for point in sent:
            times[point.instance].append(point.time_ns)
        assert all(newest[instance] <= min(stamps) for instance, stamps in times.items())
        newest.update({instance: max(stamps) for instance, stamps in times.items()})
    # Within a request too, each series is in the order of its times, and has a time once.
    for sent in store.requests:
        by_series = defaultdict(list)
        for point in sent:
            by_series[point.series].append(point.time_ns)
        assert all(stamps == sorted(set(stamps)) for stamps in by_series.values())


def test_live_points_have_own_instance(rank: Rank, tmp_path: Path) -> None:
    """What describes the sending comes last and under another instance: its times are newer than later records'."""
    rank.record(1)
    store = Store()
    sender(store, tmp_path).send_all(feeds(tmp_path))
    names = {point.name for point in store.requests[0] if point.instance.endswith(LIVE_SUFFIX)}
    elsewhere = (rows.STEP, rows.STEP_POINTS, rows.STEP_ORDINAL, rows.SESSION_FAILED, rows.SETTING, rows.CLOCK_OFFSET)
    assert names == {SETTING_NAME, *(row.name for row in rows.PIPELINE if row not in elsewhere)}
    assert all(point.instance == "run/7/0" for point in store.requests[0] if point.name not in names)
    last = [point.instance.endswith(LIVE_SUFFIX) for point in store.requests[0]]
    assert last == sorted(last)
