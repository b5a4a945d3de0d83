"""Ranks that raise or are killed, and what the others have to do with it: nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from otel_train.ring import Kind, RingReader, ring_files

ROOT = Path(__file__).parents[2]


class Lost(NamedTuple):
    """How the four ranks ended."""

    out: Path
    codes: list[int]
    logs: list[str]


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Lost:
    """Run the ranks once."""
    out = tmp_path_factory.mktemp("lost")
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    common = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OTEL_TRAIN_SIDECAR": "external"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "4", "OTEL_TRAIN_RUN_ID": "lost"}
    command = [sys.executable, str(Path(__file__).with_name("lost_ranks.py")), str(out)]
    ranks = [
        subprocess.Popen(command, env={**common, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(4)
    ]
    try:
        logs = [rank.communicate(timeout=120)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return Lost(out, [rank.returncode for rank in ranks], logs)


def test_the_others_train_on_to_their_end(lost: Lost) -> None:
    """They exit as ever; of a session they say once at most that values are lost, and nothing else raises in them.

    A rank that raises has closed its session, and takes part, without values, until its process has ended.
    """
    assert lost.codes == [0, 0, 1, -signal.SIGKILL], lost.logs
    for log in lost.logs[:2]:
        lost_at_once, at_the_end = (
            log.count("no more cluster-wide values"),
            log.count("are not in the cluster's values"),
        )
        assert lost_at_once + at_the_end in (1, 2)
        assert log.count("Traceback") == 0


@pytest.mark.parametrize(("name", "mean"), [("raises", 37.0), ("killed", 337.0)])
def test_what_was_reduced_is_right_and_the_rest_is_counted(name: str, mean: float, lost: Lost) -> None:
    """Steps 1 to 3 came back, later ones may have, without the lost rank, and none under another's number."""
    reader = RingReader(ring_files(lost.out / name)[0])
    cluster = [record for record in reader.read(0, 100)[0] if record.kind is Kind.CLUSTER]
    values = [reader.layout.by_key(each.values[: reader.layout.sums], (), ())["loss"] for each in cluster]
    steps = [record.step for record in cluster]
    assert steps == list(range(1, max(3, len(steps)) + 1))
    assert values[:3] == [mean * step for step in steps[:3]]
    assert all(value in (mean * step, 5.5 * step) for step, value in zip(steps, values, strict=True))
    progress = reader.progress
    assert (progress.step, progress.closed, progress.abandoned) == (20, True, 20 - len(steps))


@pytest.mark.parametrize(("name", "rank", "closed"), [("raises", 2, True), ("killed", 3, False)])
def test_the_lost_ranks_own_steps_are_in_its_ring(name: str, rank: int, closed: bool, lost: Lost) -> None:
    """All four, the last one before the exception or the signal too; a raising rank closes its session."""
    reader = RingReader(ring_files(lost.out / name)[2])
    assert reader.identity.rank == rank
    assert [record.step for record in reader.read(0, 100)[0]] == [1, 2, 3, 4]
    assert (reader.progress.closed, reader.writer_lives) == (closed, False)
