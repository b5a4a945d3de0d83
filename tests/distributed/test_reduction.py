"""Reductions over four real ranks: what they give, and that no rank's trouble is another's hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_train.ring import Kind, RingReader, ring_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all cases once and return where the ranks wrote."""
    out = tmp_path_factory.mktemp("reduction")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    command += [str(Path(__file__).with_name("ranks.py")), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OTEL_TRAIN_SIDECAR": "external"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def said(out: Path) -> dict[str, list[Any]]:
    """Return what each rank said, by case."""
    ranks = [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(4)]
    return {case: [each[case] for each in ranks] for case in ranks[0]}


EXPECTED: dict[str, list[Any]] = {
    # Ages 1, 1, 4 and 1.
    "oldest_reader": [[7 / 4, 4.0, 2.0]] * 4,
    "goes_on": [{"x": 1.5}] * 4,
    "collectives": [[1, 1, 2, 1]] * 4,
    # In step 3 the others' values stay: 0 + 1 + 2 + 3 in the other steps.
    "failing_source": [[6.0, 6.0, 5.0, 6.0, 6.0]] * 4,
    "short_flush": [[3, 3.0]] * 4,
    # Data groups are ranks 0 and 2, and 1 and 3: the rank that is named is the job's, not the group's.
    "mesh": [[2.0, 2.0], [3.0, 3.0], [2.0, 2.0], [3.0, 3.0]],
    # Ranks 0 and 1 see the same data, and so do 2 and 3: the data group's values count each once.
    "groups": [[[11, 0.5, 1111]] * 2] * 4,
    # Rank 1 says that the values go nowhere, and starts the sidecar, since local rank 0 is not with them.
    "without_rank_0": [None, [1.5, 1, True], [1.5, 0, False], None],
}


@pytest.mark.parametrize("case", EXPECTED)
def test_every_rank_gets_the_values_worked_out_by_hand(case: str, said: dict[str, list[Any]]) -> None:
    """Means, maxima with their rank, and values after a step that one rank could not measure."""
    assert said[case] == EXPECTED[case]


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("missing_sum_key", "ConfigurationError: rank 1: sum_keys names 'n'"),
        ("later_keys", "SchemaMismatchError: metric 'y' is given by rank 1 and not by rank 0"),
        ("earlier_keys", "SchemaMismatchError: metric 'z' is given by rank 1 and not by rank 0"),
        ("later_sum", "SchemaMismatchError: metric 'x' is ['', 'gauge', 'mean'] on rank 0"),
        ("pair_differs", "SchemaMismatchError: metric 'y' is given by rank 2 and not by rank 3"),
        ("no_number", "ConfigurationError: rank 1: metric 'x' must be a number"),
    ],
)
def test_one_ranks_mistake_is_an_error_on_all(case: str, complaint: str, said: dict[str, list[Any]]) -> None:
    """At the first call and at later ones; nobody hangs, and no process is aborted."""
    assert all(each.startswith(complaint) for each in said[case] if each is not None)


def test_a_source_that_raises_is_an_error_on_all(said: dict[str, list[Any]]) -> None:
    """Its own on its rank; the others name the rank, and none of them waits."""
    assert said["raising_source"][1] == ["OSError: gone", 6.0]
    other = ["OtelTrainError: rank 1 could not measure; its own error says why", 6.0]
    assert [each for rank, each in enumerate(said["raising_source"]) if rank != 1] == [other] * 3


@pytest.mark.parametrize(("name", "writers"), [("data", [0]), ("all", [0]), ("pair", [])])
def test_the_clusters_values_are_written_by_rank_0_alone(name: str, writers: list[int], out: Path) -> None:
    """Peers along the tensor dimension write their ranks' own values only, and so does a group without rank 0."""
    readers = [RingReader(path) for path in ring_files(out / name)]
    kinds = {reader.identity.rank: {record.kind for record in reader.read(0, 100)[0]} for reader in readers}
    assert [rank for rank, found in kinds.items() if Kind.CLUSTER in found] == writers
    assert all(Kind.RANK in found for found in kinds.values())


def test_the_groups_of_a_job_share_run_id_and_attempt(said: dict[str, list[Any]]) -> None:
    """Over a mesh all groups have one; the next session has another one, also where some ranks had one more before."""
    identities = said["identities"]
    pair, mesh, everybody = identities[1]
    assert identities == [[mesh, everybody], [pair, mesh, everybody], [pair, mesh, everybody], [mesh, everybody]]
    assert len({run_id for run_id, _ in identities[1]}) == 3
    assert pair[1] < mesh[1] < everybody[1]


def test_attempts_grow_when_process_groups_are_made_anew(said: dict[str, list[Any]], out: Path) -> None:
    """Nothing is known of the old store then, and yet no ring takes the place of another."""
    attempts = said["another_world"][0]
    assert said["another_world"] == [attempts] * 4
    assert sorted(set(attempts)) == attempts
    assert len(ring_files(out / "again")) == 16
