"""What is said of a whole run, and how the command says it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from otel_train.catalogue import HealthyRange, Statistic, rows
from otel_train.cli import main
from otel_train.delivery import FAILING, OK, DeliveryStatus, write_status
from otel_train.diagnose.examine import examine, find_pipeline, newest_stretch
from otel_train.diagnose.finding import Severity
from otel_train.read import History, Track
from otel_train.read.load import load
from tests.support.train_job import Train


def test_a_run_that_goes_wrong_is_explained(train: Train, tmp_path: Path) -> None:
    """Worst first: the mix and the ledger, each with its beginning, its cause and figures in its remedy."""
    train(tmp_path, steps=60, code=0.95, streams=12)
    loaded = load(str(tmp_path))
    findings = examine(loaded.history, job=loaded.job)
    by_check = {finding.check: finding for finding in findings}
    order = [Severity.CRITICAL, Severity.WARNING, Severity.UNKNOWN, Severity.OK]
    assert [order.index(each.severity) for each in findings] == sorted(order.index(each.severity) for each in findings)
    divergence = by_check[rows.MIX_DIVERGENCE.wandb_key]
    assert (divergence.severity, divergence.since_step) == (Severity.CRITICAL, 1)
    assert divergence.remedy.startswith("Give prose slots, streams or weight: it has ")
    false = by_check[rows.FALSE_EVICTIONS.wandb_key]
    assert false.remedy == "Set ledger.capacity from 4 to 12 a rank: 100 % of the false evictions go."
    assert by_check["mix drift"].severity is Severity.WARNING
    assert by_check["ranks"].summary == "all 1 have ended, at step 60"


def test_a_source_without_values_is_not_judged() -> None:
    """Nothing is wrong with what nobody measured."""
    assert {finding.severity for finding in examine(History("nowhere", "run"))} == {Severity.UNKNOWN}


@pytest.mark.parametrize(
    ("values", "statistic", "found"),
    [
        ([1, 9, 1, 9, 9], Statistic.MAX, (4, None)),
        ([1, 9, 9, 1, 1], Statistic.MAX, (2, 4)),
        ([1] * 40 + [9] * 40, Statistic.MEAN, (42, None)),
        ([1, 1, 1], Statistic.LAST, (None, None)),
    ],
)
def test_since_when_it_is_out_of_range(values: list[float], statistic: Statistic, found: tuple[int, int]) -> None:
    """The newest stretch counts, and whether it is over."""
    wanted = HealthyRange(high=5, statistic=statistic)
    assert newest_stretch(list(enumerate(values, start=1)), 1.0, wanted) == found


def test_the_command(train: Train, tmp_path: Path) -> None:
    """Text within 80 columns or JSON; the exit code is 0, 1 or, where nothing can be read, 2."""
    train(tmp_path / "well", steps=30)
    train(tmp_path / "bad", steps=30, code=0.95, streams=12)
    text = CliRunner().invoke(main, ["doctor", str(tmp_path / "bad")], env={"COLUMNS": "80"})
    assert text.exit_code == 1
    assert max(len(line) for line in text.output.splitlines()) <= 80
    assert "remedy: Set ledger.capacity from 4 to 12 a rank" in text.output
    data = CliRunner().invoke(main, ["doctor", str(tmp_path / "well"), "--json"])
    content = json.loads(data.output)
    assert (data.exit_code, content["healthy"], content["capacity"]) == (0, True, None)
    nothing = CliRunner().invoke(main, ["doctor", str(tmp_path / "nowhere")])
    assert (nothing.exit_code, nothing.output.count("\n")) == (2, 1)


@pytest.mark.parametrize("state", [OK, FAILING])
def test_doctor_says_what_the_receiver_answers(state: str, train: Train, tmp_path: Path) -> None:
    """Where records wait, by what the sidecar has noted: the address, the answer and what to do."""
    train(tmp_path, steps=3, streams=4)
    write_status(
        tmp_path, DeliveryStatus(state=state, cause="HTTP 404", text="no", address="h:1", advice="Set the path")
    )
    loaded = load(str(tmp_path))
    [found] = [each for each in examine(loaded.history, job=loaded.job) if each.check == "delivery"]
    if state == OK:
        assert (found.severity, found.summary, found.remedy) == (Severity.OK, "h:1 takes what is sent", "")
    else:
        assert (found.severity, found.evidence, found.remedy) == (Severity.WARNING, ("no",), "Set the path")
        assert "h:1 does not take what is recorded: HTTP 404" in found.summary


def test_refused_points_are_a_warning_with_remedy() -> None:
    """The receiver's reason is in the sidecar's log, and the finding says so."""
    findings = find_pipeline(History("here", "run", dropped=0.0, refused=3.0), None)
    assert [(each.check, each.severity, each.summary) for each in findings] == [
        (rows.RECORDS_DROPPED.name, Severity.OK, "0 records"),
        (rows.POINTS_REFUSED.name, Severity.WARNING, "3 points"),
    ]
    assert "sidecar's log" in findings[1].remedy


def test_values_that_were_dropped_are_something_wrong() -> None:
    """A key that came after the first step, say: since when, and whose log names it."""
    key = rows.VALUES_DROPPED.wandb_key
    history = History("here", "run", ranks={0: Track(), 1: Track()})
    for step, value in enumerate((0.0, 2.0, 0.0, 1.0), start=1):
        history.cluster.add(step, step, {key: value})
        history.ranks[1].add(step, step, {key: value})
    [finding] = [each for each in find_pipeline(history, None) if each.check == key]
    assert (finding.severity, finding.since_step, finding.rank) == (Severity.WARNING, 2, 1)
    assert finding.summary == "3 values of scalars and sources were dropped, the last at step 4"
