"""The findings of a whole run."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from textwrap import dedent

import pytest

from otel_train.catalogue import HealthyRange, Statistic, rows
from otel_train.delivery import FAILING, OK, DeliveryStatus, write_status
from otel_train.diagnose.examine import examine, find_pipeline, newest_stretch
from otel_train.diagnose.finding import WORST_FIRST, Severity
from otel_train.read import History, Track
from otel_train.read.curve_points import Points
from otel_train.read.load import load
from otel_train.ring import take_lock
from otel_train.ring.file_format import PROGRESS_OFFSET
from otel_train.top.one_frame import Watch
from tests.support.job_rings import ATTEMPT, FakeRank, write_job
from tests.support.train_job import Train


def test_wrong_run_is_explained(train: Train, tmp_path: Path) -> None:
    """The mix and the ledger come first, each with its beginning, its cause and numbers in its remedy."""
    train(tmp_path, steps=60, code=0.95, streams=12)
    loaded = load(str(tmp_path))
    findings = examine(loaded.history, job=loaded.job)
    by_check = {finding.check: finding for finding in findings}
    order = [WORST_FIRST.index(finding.severity) for finding in findings]
    assert order == sorted(order)
    divergence = by_check[rows.MIX_DIVERGENCE.wandb_key]
    assert (divergence.severity, divergence.since_step) == (Severity.CRITICAL, 1)
    assert divergence.remedy.startswith("Give prose slots, streams or weight: it has ")
    false = by_check[rows.FALSE_EVICTIONS.wandb_key]
    assert false.remedy == "Set ledger.capacity from 4 to 12 a rank: 100 % of the false evictions go."
    assert by_check["mix drift"].severity is Severity.WARNING
    assert by_check["ranks"].summary == "all 1 have ended, at step 60"


def test_empty_source_is_unknown() -> None:
    """Nothing is wrong with values that nobody measured."""
    assert {finding.severity for finding in examine(History("nowhere", "run"))} == {Severity.UNKNOWN}


@pytest.mark.parametrize(
    ("values", "statistic", "expected"),
    [
        ([1, 9, 1, 9, 9], Statistic.MAX, (4, None)),
        ([1, 9, 9, 1, 1], Statistic.MAX, (2, 4)),
        ([1] * 40 + [9] * 40, Statistic.MEAN, (42, None)),
        ([1, 1, 1], Statistic.LAST, (None, None)),
    ],
)
def test_newest_stretch_is_returned(values: list[float], statistic: Statistic, expected: tuple[int, int]) -> None:
    """The newest stretch out of range counts, and whether it is over."""
    bounds = HealthyRange(high=5, statistic=statistic)
    assert newest_stretch(Points(range(1, len(values) + 1), values), 1.0, bounds) == expected


@pytest.mark.parametrize("state", [OK, FAILING])
def test_delivery_status_is_finding(state: str, train: Train, tmp_path: Path) -> None:
    """The sidecar's note gives, while records wait, the receiver's address, its answer and the remedy."""
    train(tmp_path, steps=3, streams=4)
    lock = take_lock(tmp_path)
    assert lock is not None
    write_status(
        tmp_path, DeliveryStatus(state=state, cause="HTTP 404", text="no", address="h:1", advice="Set the path")
    )
    loaded = load(str(tmp_path))
    findings = {finding.check: finding for finding in examine(loaded.history, job=loaded.job)}
    os.close(lock)
    delivery = findings["delivery"]
    if state == OK:
        assert (delivery.severity, delivery.summary, delivery.remedy) == (Severity.OK, "h:1 takes what is sent", "")
    else:
        assert (delivery.severity, delivery.evidence, delivery.remedy) == (Severity.WARNING, ("no",), "Set the path")
        assert "h:1 does not take what is recorded: HTTP 404" in delivery.summary


def test_leftovers_are_finding(train: Train, tmp_path: Path) -> None:
    """Records of a job that is over, with nobody there to send them, are a finding that says how to."""
    train(tmp_path, steps=3, streams=4)
    loaded = load(str(tmp_path))
    findings = {finding.check: finding for finding in examine(loaded.history, job=loaded.job)}
    assert "are not delivered, and no sidecar is there any more" in findings["delivery"].summary
    assert findings["delivery"].remedy.startswith(f"`otel-train send {tmp_path}` sends them")
    lock = take_lock(tmp_path)
    assert lock is not None
    assert "delivery" not in {finding.check for finding in examine(loaded.history, job=loaded.job)}
    os.close(lock)


def test_shared_run_is_finding(tmp_path: Path) -> None:
    """Another job that writes the same run is a finding with its process, and a notice in `top`, while it goes on."""
    program = f"""
        import sys
        from pathlib import Path
        from tests.support.job_rings import ATTEMPT, FakeRank
        rank = FakeRank(Path({str(tmp_path)!r}), 0, 1, ATTEMPT - 1)
        rank.write(7)
        print("writes", flush=True)
        sys.stdin.readline()
    """
    command, pipe = [sys.executable, "-c", dedent(program)], subprocess.PIPE
    open_here = write_job(tmp_path, 1, 3)
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=Path(__file__).parents[2]) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"writes\n"
        loaded = load(str(tmp_path))
        findings = {finding.check: finding for finding in examine(loaded.history, job=loaded.job)}
        with closing(Watch(tmp_path)) as watch:
            [notice] = watch.snapshot().notices
        other.kill()
    assert findings["run"].summary == "another job writes run 'run' too"
    assert findings["run"].evidence == (f"rank 0 of attempt {ATTEMPT - 1}, process {other.pid}, goes on at step 7",)
    assert f"process {other.pid}" in notice
    assert "run" not in {finding.check for finding in examine(loaded.history, job=loaded.job)}
    open_here += [FakeRank(tmp_path, 0, 1, ATTEMPT - 2), FakeRank(tmp_path, 0, 1, ATTEMPT - 3)]
    with open_here[-1].ring.path.open("r+b") as file:
        file.seek(PROGRESS_OFFSET)
        file.write((2**63).to_bytes(8, "little"))  # a damaged ring of an earlier attempt changes nothing
    loaded = load(str(tmp_path))
    assert "run" not in {finding.check for finding in examine(loaded.history, job=loaded.job)}


def test_refused_points_are_warning() -> None:
    """Refused points are a warning with their reasons; the remedy is that of the most frequent one."""
    history = History("here", "run", dropped=0.0, refused=3.0, refusals={"rejected": 2.0, "too_new": 1.0})
    findings = find_pipeline(history, None)
    assert [(finding.check, finding.severity, finding.summary) for finding in findings] == [
        (rows.RECORDS_DROPPED.name, Severity.OK, "0 records"),
        (rows.POINTS_REFUSED.name, Severity.WARNING, "3 points"),
    ]
    assert findings[1].evidence == ("rejected: 2, too_new: 1",)
    assert "sidecar's log" in findings[1].remedy
    history.refusals["too_new"] = 3.0
    assert "clock" in find_pipeline(history, None)[1].remedy


def test_dropped_values_are_warning() -> None:
    """Dropped values, such as those of a key that came late, are a warning with their first step and rank."""
    key = rows.VALUES_DROPPED.wandb_key
    history = History("here", "run", ranks={0: Track(), 1: Track()})
    for step, value in enumerate((0.0, 2.0, 0.0, 1.0), start=1):
        history.cluster.add(step, step, {key: value})
        history.ranks[1].add(step, step, {key: value})
    [finding] = [finding for finding in find_pipeline(history, None) if finding.check == key]
    assert (finding.severity, finding.since_step, finding.rank) == (Severity.WARNING, 2, 1)
    assert finding.summary == "3 values of scalars and sources were dropped, the last at step 4"


@pytest.mark.parametrize(
    ("own", "total", "cause"),
    [
        (0.5, 0.5, "the workers of a rank's loader read the same samples"),
        (0.0, 0.5, "ranks read the same samples"),
        (0.2, 0.84, "ranks read the same samples"),
        (1.0, 1.0, "the workers of a rank's loader read the same samples"),
    ],
)
def test_repeats_are_explained(own: float, total: float, cause: str) -> None:
    """Repeats within the ranks and between them have different causes; the share of each is in the evidence."""
    key = rows.REPEATS.wandb_key
    history = History("rings", "run", world_size=2, ranks={0: Track(), 1: Track()})
    for step in range(1, 41):
        history.cluster.add(step, step, {key: total})
        for track in history.ranks.values():
            track.add(step, step, {key: own})
    [finding] = [finding for finding in examine(history) if finding.check == key]
    assert (finding.severity, finding.since_step) == (Severity.WARNING, 1)
    assert finding.cause.startswith(cause)
    assert f"{100 * own:.0f} % are repeats" in finding.evidence[-1]


def test_repeats_need_no_values() -> None:
    """Of a job whose rows carry no sample keys nothing is said."""
    assert rows.REPEATS.wandb_key not in {finding.check for finding in examine(History("rings", "run"))}
