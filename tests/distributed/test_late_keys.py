"""Keys that come at any step, on any rank, by any call: all are recorded, and each under its own step.

The ranks stay for all schedules: rank 0 draws them, all run them, and rank 0 compares.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import pytest
import torch.distributed as dist
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import otel_train
from otel_train.ring import Kind, RingReader, ring_files
from tests.support.late_key_schedules import MAX, MEANS, SUM, Call, Schedule, Values, joined, schedules
from tests.support.on_ranks import Job

RANKS = 3
KEYS = {*MEANS, SUM, MAX}
DECLARED = [otel_train.Scalar(SUM, "sum"), otel_train.Scalar(MAX, "max")]


class Recorded(NamedTuple):
    """What a rank's session has left."""

    own: Values
    cluster: Values
    logged: list[tuple[int, str, float]]
    """The cluster's, in the order of the ring: step, key, value."""
    latest: tuple[int, dict[str, float]] | None
    abandoned: int
    warnings: list[str]


def run(job: Job, schedule: Schedule, number: int) -> Recorded:
    """Run a rank's part of a schedule."""
    del job.warnings[:]
    name = f"rings{number}"
    telemetry = job.session(name, metrics=DECLARED, log_every=schedule.log_every, max_in_flight=20, ring_records=64)
    for gap in range(schedule.ends[job.rank] + 1):
        for call in schedule.of(job.rank, gap, "add", "log"):
            if call.method == "add":
                telemetry.add({call.key: call.value}, weight=call.weight)
            else:
                telemetry.log({call.key: call.value}, call.step, weight=call.weight)
        if gap < schedule.ends[job.rank]:
            telemetry.step(gap + 1, {call.key: call.value for call in schedule.of(job.rank, gap, "step")})
    telemetry.close()
    job.barrier()
    return read(job, name, telemetry.latest)


def read(job: Job, name: str, latest: Any) -> Recorded:
    """Return what this rank's ring has."""
    (path,) = [path for path in ring_files(job.folder / name) if RingReader(path).identity.rank == job.rank]
    reader = RingReader(path)
    values: dict[Kind, Values] = {Kind.RANK: {}, Kind.CLUSTER: {}}
    logged = []
    for record in reader.read(0, sys.maxsize)[0]:
        row = of_keys(record.layout.by_key(*record.layout.split(record.values)))
        if not record.logged and row:
            values[record.kind][record.step] = row
        elif record.logged and record.kind is Kind.CLUSTER:
            logged += [(record.step, key, value) for key, value in row.items()]
    newest = latest and (latest[0], of_keys(latest[1]))
    return Recorded(
        values[Kind.RANK], values[Kind.CLUSTER], logged, newest, reader.progress.abandoned, list(job.warnings)
    )


def of_keys(row: dict[str, float]) -> dict[str, float]:
    """Return the values of the schedules' keys."""
    return {key: value for key, value in row.items() if key in KEYS}


def search(
    job: Job, drawn: st.SearchStrategy[Schedule], check: Callable[[Schedule, list[Recorded]], None], examples: int
) -> None:
    """Have rank 0 draw schedules, all ranks run them, and rank 0 check what they have recorded."""
    number = 0

    def together(schedule: Schedule | None) -> list[Recorded]:
        nonlocal number
        message = [schedule]
        dist.broadcast_object_list(message, src=0)
        if message[0] is None:
            return []
        number += 1
        try:
            outcome: Recorded | str = run(job, message[0], number)
        except Exception as error:  # noqa: BLE001  # rank 0 raises it
            outcome = repr(error)
        outcomes = job.gather(outcome)
        assert job.rank or not [one for one in outcomes if isinstance(one, str)], outcomes
        return outcomes

    if job.rank:
        while together(None):
            pass
        return

    # To shrink what fails would take the time of all tests on ranks.
    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate])
    @given(drawn)
    def draw(schedule: Schedule) -> None:
        check(schedule, together(schedule))

    try:
        draw()
    finally:
        together(None)


def check_steps(schedule: Schedule, recorded: list[Recorded]) -> None:
    """Compare what came by `step` and `add`, of each rank and of all together; what nobody gave is absent."""
    assert recorded[0].cluster == schedule.step_values()
    assert [one.own for one in recorded] == [schedule.step_values(rank) for rank in range(RANKS)]
    told = [text for one in recorded for text in one.warnings]
    early = len(set(schedule.ends)) > 1
    allowed = ("no part in the reduction", "not in the cluster's values")[: 1 + early]
    assert all(any(part in text for part in allowed) for text in told), told


def check_evaluations(schedule: Schedule, recorded: list[Recorded]) -> None:
    """Compare what came by `log` too: each under its own step, a mean over the ranks that gave it.

    A rank that ends earlier leaves its last values at its end, the others give theirs to a reduction: two rows. And
    what came in the way of another step's, reduction after reduction, is one row at the end.
    """
    if len(set(schedule.ends)) > 1:
        check_any_logs(schedule, recorded)
    check_steps(schedule, recorded)
    if len(set(schedule.ends)) == 1:
        logged: dict[tuple[int, str], list[float]] = defaultdict(list)
        for step, key, value in recorded[0].logged:
            logged[step, key].append(value)
        groups = schedule.logged_calls()
        assert logged.keys() == groups.keys()
        for (step, key), values in logged.items():
            assert sorted(values) in possible_rows(key, groups[step, key]), (step, key)


def possible_rows(key: str, groups: list[list[Call]]) -> list[list[float]]:
    """Return the values that the rows of a key and step may have, where some reductions' calls come together."""
    rows = []
    for size in range(len(groups) + 1):
        for apart in combinations(groups, size):
            rest = [call for calls in groups if calls not in apart for call in calls]
            rows.append(sorted(joined(key, calls) for calls in (*apart, rest) if calls))
    return rows


def check_any_logs(schedule: Schedule, recorded: list[Recorded]) -> None:
    """Ranks that log a key for several steps between two reductions: no value is wrong, and none lost silently."""
    check_steps(schedule, [one._replace(warnings=[]) for one in recorded])
    given: dict[tuple[int, str], list[Call]] = defaultdict(list)
    for call in schedule.made:
        if call.method == "log":
            given[call.logged_for, call.key].append(call)
    possible = {
        where: {joined(where[1], list(some)) for size in range(len(calls)) for some in combinations(calls, size + 1)}
        for where, calls in given.items()
    }
    assert all(value in possible.get((step, key), ()) for step, key, value in recorded[0].logged)
    lost = set(given) - {(step, key) for step, key, _ in recorded[0].logged}
    told = " ".join(recorded[0].warnings)
    assert all(key in told for _, key in lost), lost


@pytest.mark.ranks(RANKS)
def test_any_schedule_is_recorded(job: Job) -> None:
    """Keys of `step`, `add` and `log` at any step on any rank, ranks that end early, intervals of 1, 3 and 10 steps."""
    search(job, schedules(RANKS), check_evaluations, 60)


@pytest.mark.ranks(2)
def test_last_log_is_recorded(job: Job) -> None:
    """What one rank alone gives after the last step, by `log` and `add`, a while after the other one has closed."""
    with job.session(metrics=DECLARED) as telemetry:
        telemetry.step(1)
        if job.rank:
            time.sleep(0.5)
            telemetry.log({SUM: -2.0})
            telemetry.add({"lr": 3.0})
    job.barrier()
    if job.rank == 0:
        recorded = read(job, "rings", None)
        assert (recorded.cluster, recorded.logged) == ({2: {"lr": 3.0}}, [(1, SUM, -2.0)])


@pytest.mark.ranks(2)
def test_logs_wait_for_no_step(job: Job) -> None:
    """What was logged for several steps between two reductions comes with the next one, or the last, all of it."""
    with job.session(log_every=4) as telemetry:
        for step in range(1, 8):
            telemetry.step(step)
            telemetry.log({"lr": float(step + 2 * job.rank)})
    job.barrier()
    if job.rank == 0:
        assert sorted(read(job, "rings", None).logged) == [(step, "lr", step + 1.0) for step in range(1, 8)]


@pytest.mark.ranks(RANKS)
def test_any_logs_stay_right(job: Job) -> None:
    """Whatever is logged for whatever step, nothing wrong is recorded, and what is lost is named."""
    search(job, schedules(RANKS, evaluations=False), check_any_logs, 40)


@pytest.mark.ranks(2)
def test_too_many_keys_are_named(job: Job) -> None:
    """Each rank has a hundred keys of its own in one step: what there is room for is right, and a rank warns once."""
    with job.session() as telemetry:
        telemetry.step(1)
        telemetry.step(2, {f"r{job.rank}/{number}": float(number) for number in range(100)})
    job.barrier()
    told = job.gather(job.warnings)
    if job.rank == 0:
        (row,) = [
            record.layout.by_key(*record.layout.split(record.values))
            for record in job.ring().read(0, sys.maxsize)[0]
            if record.kind is Kind.CLUSTER and record.step == 2
        ]
        values = {key: value for key, value in row.items() if key.startswith("r")}
        assert values
        assert all(value == float(key.split("/")[1]) for key, value in values.items())
        counts = [sum("came after the first step" in text for text in texts) for texts in told]
        assert max(counts) == 1, told
