"""Sessions and reductions over two real ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otel_train.catalogue import rows
from otel_train.ring import Kind, RingReader, ring_files

ROOT = Path(__file__).parents[2]


class Ran(NamedTuple):
    """What came of the cases."""

    out: Path
    said: list[dict[str, Any]]
    """What each rank said, by case."""

    def of(self, case: str) -> list[Any]:
        """Return what each rank said in one case."""
        return [each[case] for each in self.said]

    def ring(self, case: str, rank: int = 0) -> RingReader:
        """Return a rank's ring."""
        return RingReader(ring_files(self.out / case)[rank])

    def cluster(self, case: str, key: str = "loss") -> dict[int, float]:
        """Return a value over the cluster, by step, as rank 0 recorded it."""
        reader = self.ring(case)
        sums, peaks = reader.layout.sums, reader.layout.peaks
        return {
            each.step: reader.layout.by_key(
                each.values[:sums], each.values[sums : sums + peaks], each.values[sums + peaks :]
            )[key]
            for each in reader.read(0, 1000)[0]
            if each.kind is Kind.CLUSTER
        }


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Run all cases on two ranks once."""
    out = tmp_path_factory.mktemp("session")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(Path(__file__).with_name("session_ranks.py")), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    said = [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]
    return Ran(out, said)


def test_values_over_two_ranks_are_those_worked_out_by_hand(ran: Ran) -> None:
    """Weighted means, the maximum with its rank, a divergence of the joined counts, on both ranks alike."""
    said = ran.of("aggregated")
    assert said[0] == said[1]
    # Ages at step 3 of four readers: the two that were picked in step 1, and the two that never were, 2 each.
    assert said[0]["stream_mixing/staleness_mean"] == 2.0
    assert said[0]["stream_mixing/picks"] == 3
    assert said[0]["stream_mixing/staleness_max_rank"] == 0
    assert said[0]["stream_mixing/modality_share/b"] == pytest.approx(2 / 3, rel=1e-3)
    assert said[0]["stream_mixing/modality_target/b"] == pytest.approx(3 / 4)
    assert said[0]["stream_mixing/tokens/a"] == 10


def test_loss_metrics_are_means_and_totals_with_their_maximum(ran: Ran) -> None:
    """Means by default, cluster totals for sum_keys, and what the largest rank has beside them."""
    assert ran.of("loss_metrics") == [[{"n": 3.0, "n_max": 2.0, "x": 0.5}, {"n": 5.0, "n_max": 3.0, "x": 0.5}]] * 2


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("other_keys", "SchemaMismatchError: metric 'y' is given by rank 1 and not by rank 0"),
        ("other_schema", "SchemaMismatchError: metric 'extra' is given by rank 1 and not by rank 0"),
        ("one_wrong", "ConfigurationError: rank 1: metric '_loss': wandb keeps names that begin with '_'"),
        ("long_run_id", "ConfigurationError: rank 1: run_id must be at most 128 printable characters, got 'rrr"),
    ],
)
def test_what_differs_or_is_wrong_on_one_rank_is_an_error_on_all(case: str, complaint: str, ran: Ran) -> None:
    """Key and rank are named, and nobody waits for somebody who has raised."""
    assert all(said.startswith(complaint) for said in ran.of(case))


def test_a_value_that_one_rank_cant_give_is_the_others(ran: Ran) -> None:
    """At the first step too, where nobody waits for that rank; it is counted."""
    expected = {"loss": 2.0, "other": 1.0, "telemetry/values_dropped": 1.0}
    assert ran.of("one_unreadable") == [[expected] * 2] * 2


def test_an_option_that_differs_is_an_error_on_all(ran: Ran) -> None:
    """It names option, ranks and values; the size of a rank's ring may differ."""
    options = [("log_every", "2", "1"), ("blocking", "True", "False"), ("max_in_flight", "5", "4")]
    options += [("reduction_timeout", "3.0", "2.0"), ("close_timeout", "0.4", "0.3"), ("rank_interval", "1.0", "10.0")]
    expected = [
        f"ConfigurationError: telemetry.{name} is {other} on rank 1 and {first} on rank 0; give all ranks the same"
        for name, other, first in options
    ]
    assert ran.of("other_options") == [expected] * 2


def test_blocking_gives_the_values_of_the_same_step(ran: Ran) -> None:
    """On every rank."""
    assert ran.of("blocking") == [[1.5, 2.5, 3.5]] * 2


def test_asynchronous_values_are_recorded_under_their_step(ran: Ran) -> None:
    """However late a reduction is harvested; and the ranks have loaded torch and the standard library only."""
    assert ran.of("asynchronous") == [[], []]
    assert ran.cluster("asynchronous", rows.PICKS.wandb_key) == {step: 3.0 * step for step in range(1, 31)}


def test_steps_that_the_ranks_do_not_share_are_thrown_away_and_counted(ran: Ran) -> None:
    """A skipped step costs itself, not the next one."""
    assert ran.of("out_of_step") == [[True, False, True]] * 2
    assert list(ran.cluster("out_of_step")) == [1, 4]
    assert [ran.ring("out_of_step", rank).progress.abandoned for rank in range(2)] == [1, 1]


@pytest.mark.parametrize(("case", "missed", "last"), [("skips", {4}, 10), ("ends_early", set(range(6, 13)), 12)])
def test_a_step_without_a_rank_is_the_others(case: str, missed: set[int], last: int, ran: Ran) -> None:
    """A rank that leaves out a step, or ends earlier, costs the others nothing; it is named once."""
    expected = {step: float(step) if step in missed else 5.5 * step for step in range(1, last + 1)}
    assert ran.cluster(case) == expected
    assert ran.cluster(case, "train/ranks") == {step: 1.0 if step in missed else 2.0 for step in expected}
    progress = ran.ring(case).progress
    assert (progress.step, progress.closed, progress.abandoned) == (last, True, 0)
    assert [f"rank 1 takes no part in the reduction of step {min(missed)}" in said for said in ran.of(case)[0]] == [
        True
    ]


RESTS = {
    "rest": {10: 20.0, 20: 20.0, 25: 10.0},
    "only_rest": {25: 50.0},
    "stride": {11: 4.0, 21: 2.0, 31: 2.0},
    "other_rests": {10: 20.0, 20: 20.0, 25: 5.0},
}
"""Picks over the cluster by step; of the last session rank 0's alone at its end, since rank 1's was another step."""


@pytest.mark.parametrize("case", RESTS)
def test_what_came_after_the_last_log_step_is_a_row(case: str, ran: Ran) -> None:
    """Of all ranks that end with the same step; so the picks of all rows are all picks."""
    assert ran.cluster(case, rows.PICKS.wandb_key) == RESTS[case]
    assert [ran.ring(case, rank).progress.abandoned for rank in range(2)] == [0, int(case == "other_rests")]


def test_steps_that_do_not_meet_are_said_once(ran: Ran) -> None:
    """Nothing of one step is recorded with what belongs to another, and nobody waits for long."""
    assert ran.cluster("other_numbers") == {}
    for said in ran.of("other_numbers"):
        assert sum(message.count("not at the same step (rank 0: 1, rank 1: 101)") for message in said) == 1
    assert ran.ring("other_numbers").progress.abandoned == 12


@pytest.mark.parametrize(("case", "mean"), [("repeated", 4.0), ("added", 3.5)])
def test_micro_batches_give_the_mean_of_their_step(case: str, mean: float, ran: Ran) -> None:
    """Each call of `step` counts once, and each of `add` by its weight, however many a rank makes."""
    assert ran.cluster(case) == {step: step * mean for step in range(1, 6)}
    assert ran.of(case) == [[], []]


def test_no_more_reductions_are_under_way_than_allowed(ran: Ran) -> None:
    """Rank 0 goes three steps ahead of rank 1, and does not end the fifth before rank 1 has come; it says so once."""
    most, came, said = ran.of("bounded")[0]
    assert (most, came) == (3, [False] * 4 + [True] * 2)
    assert [message.count("Raise log_every") for message in said] == [1]
    assert list(ran.cluster("bounded")) == [1, 2, 3, 4, 5, 6]


def test_what_no_peer_came_to_is_counted_at_the_end(ran: Ran) -> None:
    """Rank 0 trains on, and counts at its end all eight steps that rank 1 did not come to."""
    assert "8 log steps up to the end are not in the cluster's values" in ran.of("gives_up")[0][-1]
    reader = ran.ring("gives_up")
    assert [record.step for record in reader.read(0, 100)[0] if record.kind is Kind.RANK] == list(range(1, 10))
    assert (list(ran.cluster("gives_up")), reader.progress.abandoned) == ([1], 8)


def test_a_rank_that_leaves_does_not_make_another_wait(ran: Ran) -> None:
    """The other one trains on and closes within its bounds, and what was lost is counted."""
    assert ran.said[0]["leaves_early"]
    progress = ran.ring("leaves_early").progress
    assert (progress.step, progress.closed) == (20, True)
    assert progress.abandoned >= 16
