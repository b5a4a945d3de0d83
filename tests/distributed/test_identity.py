"""Who the ranks are, where no launcher says it or a launcher is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.environment import clean_environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Run all cases once on two ranks and return what each rank said, by case."""
    out = tmp_path_factory.mktemp("identity")
    command = [sys.executable, "-m", "tests.distributed.identity_ranks", str(out)]
    environment = clean_environment(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")  # else no sidecar is started
    ranks = [
        subprocess.Popen([*command, str(rank)], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        errors = [rank.communicate(timeout=200)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)
    found = [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]
    return {case: [each[case] for each in found] for case in found[0]}


@pytest.mark.parametrize("case", ["before_group", "all_local_rank_0", "minus_one"])
def test_ranks_agree_on_who_they_are(case: str, said: dict[str, list[Any]]) -> None:
    """The cluster's mean, ranks, local ranks, local world size and one sidecar, though init came before the group."""
    assert [rank[:5] for rank in said[case]] == [[0.5, 0, 0, 2, 1], [0.5, 1, 1, 2, 0]]
    assert said[case][0][5:] == said[case][1][5:]


def test_each_directory_of_a_machine_gets_a_sidecar(said: dict[str, list[Any]]) -> None:
    """Ranks that do not share one would else be sent by nobody."""
    assert [rank[4] for rank in said["own_directories"]] == [1, 1]


def test_ranks_that_torchrun_starts_again_meet_at_their_new_addresses(said: dict[str, list[Any]]) -> None:
    """Its store still holds those of the attempt before."""
    assert said["again_in_one_store"] == [[0.5, 0.5]] * 2


def test_another_job_in_the_same_processes_is_another_run(said: dict[str, list[Any]]) -> None:
    """Pools give one process several jobs."""
    assert len({said[case][0][5] for case in ("before_group", "minus_one", "own_directories")}) == 3


def test_a_group_without_this_rank_is_refused(said: dict[str, list[Any]]) -> None:
    """Also what is no group at all."""
    (fine, *_), (missing, *_) = said["no_member"]
    assert (fine, missing[:43]) == ("", "process_group does not contain this rank; c")
    assert all("must be a process group or a DeviceMesh, got 'data'" in rank[1] for rank in said["no_member"])


@pytest.mark.parametrize(
    ("case", "variable"), [("no_group", "WORLD_SIZE"), ("no_group_to_reduce_over", "OMPI_COMM_WORLD_SIZE")]
)
def test_several_ranks_without_a_group_are_refused(case: str, variable: str, said: dict[str, list[Any]]) -> None:
    """One rank's values would pass for the cluster's."""
    complaint = f"ConfigurationError: torch.distributed must be initialised before the first step, since {variable} is"
    assert all(each.startswith(complaint) for each in said[case])
