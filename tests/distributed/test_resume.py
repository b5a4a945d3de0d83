"""A job that goes on with 4, 2, 3, 1, 4 ranks, other batches, readers and weights: real ranks, real checkpoints."""

from __future__ import annotations

import itertools
import json
import operator
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_train.ring import RingReader, ring_files
from tests.distributed.resume_ranks import LENGTH, ROWS, STEPS, STREAMS, WORLD_SIZES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all attempts and return their folder."""
    folder = tmp_path_factory.mktemp("resume")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    command += [str(Path(__file__).with_name("resume_ranks.py")), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OTEL_TRAIN_SIDECAR": "external"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def said(out: Path) -> list[list[dict[str, Any]]]:
    """Return what each rank of each attempt wrote."""
    return [
        [json.loads((out / f"attempt{attempt}-rank{rank}.json").read_text()) for rank in range(world_size)]
        for attempt, world_size in enumerate(WORLD_SIZES)
    ]


def test_every_stream_goes_on_at_its_place_with_its_state(out: Path) -> None:
    """No row is left out or read twice, and the new owner has the state that the old one had."""
    rows = [row for attempt in said(out) for row in sorted(row for rank in attempt for row in rank["rows"])]
    read: dict[str, int] = {}
    for _, stream, positions, found, state in rows:
        before = read.get(stream, 0)
        assert positions == [number % LENGTH for number in range(before, before + len(positions))]
        assert (found, state) == (before > 0, [float(stream[1:]), before] if before else [0, 0])
        read[stream] = before + len(positions)
    assert len(read) == STREAMS
    assert sum(read.values()) == STEPS * sum(map(operator.mul, WORLD_SIZES, ROWS))


def test_steps_go_on_and_each_attempts_counts_are_its_own(out: Path) -> None:
    """Each step of the one axis has the picks of the ranks that made it."""
    attempts = said(out)
    assert all(rank["picks"] == attempt[0]["picks"] for attempt in attempts for rank in attempt)
    wanted = [[world_size * rows] * STEPS for world_size, rows in zip(WORLD_SIZES, ROWS, strict=True)]
    assert [value for attempt in attempts for value in attempt[0]["picks"]] == [
        list(each) for each in enumerate(itertools.chain(*wanted), start=1)
    ]


def test_all_attempts_are_of_one_run(out: Path) -> None:
    """The checkpoint holds the run's id; attempts grow, and their rings begin from zero."""
    headers = [RingReader(path) for path in ring_files(out / "rings")]
    identities = [reader.identity for reader in headers]
    assert len({identity.run_id for identity in identities}) == 1
    attempts = sorted({identity.attempt for identity in identities})
    sizes = [sorted(each.rank for each in identities if each.attempt == attempt) for attempt in attempts]
    assert sizes == [list(range(world_size)) for world_size in WORLD_SIZES]


def test_resharding_is_said_once(out: Path) -> None:
    """With the old size, the new one, the streams, how many moved, and the step; only the newest checkpoint is kept."""
    lines = [line for rank in range(4) for line in (out / f"log{rank}.txt").read_text().splitlines()]
    found = [
        match.groups()
        for line in lines
        if (
            match := re.search(
                r"resharded: world size (\d) -> (\d), (\d+) streams, (\d+) moved to another rank, at step (\d+)", line
            )
        )
    ]
    sizes = [(str(old), str(new)) for old, new in itertools.pairwise(WORLD_SIZES)]
    assert [(old, new, int(streams), int(step)) for old, new, streams, _, step in found] == [
        (*pair, STREAMS, STEPS * number) for number, pair in enumerate(sizes, start=1)
    ]
    assert all(0 < int(moved) < STREAMS for *_, moved, _ in found)
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{len(WORLD_SIZES) * STEPS:08d}"]
