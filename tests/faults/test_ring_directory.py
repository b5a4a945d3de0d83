"""Ring directories that are full, read-only, shared, or hold what others have left: the good rings arrive."""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path

import pytest

from otel_train.catalogue import rows
from otel_train.ring import Kind
from tests.support.fault_job import assert_each_once, running_job
from tests.support.mounts import SmallDisk, small_disk
from tests.support.pipeline import Pipeline

pytestmark = pytest.mark.faults
STEPS = 40
EVERY = list(range(1, STEPS + 1))


@pytest.mark.parametrize("spoil", [SmallDisk.fill, SmallDisk.forbid_writing])
def test_job_outlives_missing_rings(spoil: object, pipeline: Pipeline, tmp_path: Path) -> None:
    """Each rank says once that nothing is recorded, and ends as ever."""
    assert callable(spoil)
    with small_disk(tmp_path / "disk", "1m") as disk:
        spoil(disk)
        with running_job(tmp_path / "nowhere", pipeline.target, "--steps", str(STEPS), rings=disk.folder) as job:
            assert job.end() == STEPS
            assert job.log.read_text().count("nothing is recorded on this rank") == len(job.ranks)


def test_little_room_makes_smaller_rings(pipeline: Pipeline, tmp_path: Path) -> None:
    """A ring of the size that was asked for does not fit; every step arrives all the same."""
    with small_disk(tmp_path / "disk", "700k") as disk:
        with running_job(tmp_path / "narrow", pipeline.target, "--steps", str(STEPS), rings=disk.folder) as job:
            job.end()
            job.await_sidecars_end()
        assert 0 < job.ring().geometry.records < 4096
        assert_each_once(pipeline.rows(job.run_id, STEPS), EVERY)


def test_two_jobs_share_one_run(pipeline: Pipeline, tmp_path: Path) -> None:
    """They share run id and ring directory, and one sidecar at a time; each has an attempt of its own."""
    begin = partial(running_job, rings=tmp_path / "rings", environment={"OTEL_TRAIN_RUN_ID": "twins"})
    steps = (pipeline.target, "--steps", str(STEPS))
    with begin(tmp_path / "one", *steps) as one, begin(tmp_path / "two", *steps) as two:
        one.end()
        two.end()
        two.await_sidecars_end()
    history = pipeline.rows("twins", 2 * STEPS)
    attempts = {row.values["train/attempt"] for row in history}
    assert len(attempts) == 2
    for attempt in attempts:
        assert_each_once([row for row in history if row.values["train/attempt"] == attempt], EVERY)


def test_damaged_ring_costs_itself(pipeline: Pipeline, tmp_path: Path) -> None:
    """A dead job's rings are sent by the next job's sidecar but for a torn record, which is counted; junk is named."""
    rings = tmp_path / "rings"
    leave = ("--wrong", "exit", "--at", str(STEPS), "--on", "0", "1")
    alone = {"OTEL_TRAIN_SIDECAR": "external"}
    with running_job(tmp_path / "dead", pipeline.target, *leave, rings=rings, environment=alone) as dead:
        dead.end(1)
    # One byte of one of the cluster's records in the middle of rank 0's ring is changed.
    ring = dead.ring()
    torn = [record for record in ring.read(0, 1000)[0] if record.kind is Kind.CLUSTER][STEPS // 2]
    with ring.path.open("r+b") as file:
        file.seek(ring.geometry.offset(torn.sequence) + 40)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0xFF]))
    steps = [step for step in dead.recorded() if step != torn.step]
    # Beside the rings: random bytes, nothing, half a ring, and a ring with random bytes in its header.
    noise, whole = random.Random(1), ring.path.read_bytes()
    contents = [noise.randbytes(9000), b"", whole[: len(whole) // 2], whole[:12] + noise.randbytes(100) + whole[112:]]
    junk = [rings / f"rank{number:05d}-1.ring" for number in range(90, 90 + len(contents))]
    for path, content in zip(junk, contents, strict=True):
        path.write_bytes(content)
    with running_job(tmp_path / "next", pipeline.target, "--steps", str(STEPS), rings=rings) as job:
        job.end()
        job.await_sidecars_end()
    assert_each_once(pipeline.rows("next", STEPS), EVERY)
    assert_each_once(pipeline.rows("dead", len(steps)), steps)
    assert pipeline.endpoint.values_of("dead", 0, rows.RECORDS_DROPPED.name)[-1] == 1
    log = (rings / "sidecar.log").read_text()
    assert [log.count(str(path)) for path in junk] == [1] * len(junk)
