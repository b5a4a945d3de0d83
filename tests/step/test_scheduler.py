"""The run's id by the scheduler's job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import otel_train
from otel_train.ring import directory
from otel_train.step import scheduler
from otel_train.step.resource import resource_attributes
from otel_train.step.scheduler import ScheduledJob, first_part, run_name, scheduled_job
from tests.support import launcher_environments as recorded

UID = "0b8e5ff4-6d7a-4b8a-9f0e-0f6a4a1d9c11"


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the launches of a machine of its own."""
    monkeypatch.setattr(directory, "MEMORY", tmp_path)
    return tmp_path


def pod(index: int | None = None, **uids: str) -> dict[str, str]:
    """Return the environment of a pod's container, as our templates fill it."""
    pairs = ",".join(f"k8s.{name}.uid={uid}" for name, uid in uids.items())
    return {"OTEL_RESOURCE_ATTRIBUTES": pairs} | ({} if index is None else {"JOB_COMPLETION_INDEX": str(index)})


def pod_of_set(job: str, index: int = 0, uid: str = "set") -> dict[str, str]:
    """Return the environment of a pod of one of a JobSet's jobs."""
    environ = pod(index, jobset=uid, job=UID)
    return environ | {"OTEL_RESOURCE_ATTRIBUTES": f"{environ['OTEL_RESOURCE_ATTRIBUTES']},k8s.job.name={job}"}


def job_of(environ: Mapping[str, str]) -> ScheduledJob:
    """Return the scheduler's job of a process with these variables."""
    job = scheduled_job(environ, resource_attributes(environ))
    assert job is not None
    return job


def name_of(environ: Mapping[str, str], launch: str = "one") -> str:
    """Return the name of a launch."""
    return run_name(job_of(environ), launch)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (recorded.BATCH, "pilot-43"),
        (recorded.SALLOC, "pilot-43"),
        (recorded.INTERACTIVE, "pilot-43"),
        ({**recorded.BATCH, "SLURM_JOB_NUM_NODES": "2"}, "pilot-43-b"),
        ({**recorded.TASK, "SLURM_PROCID": "0"}, "pilot-43"),
        ({**recorded.TASK, "SLURM_PROCID": "0", "SLURM_STEP_ID": "2"}, "pilot-43-s2"),
        ({**recorded.TASK, "SLURM_STEP_ID": "2"}, "pilot-43-s2-t1"),
        ({"SLURM_JOBID": "7"}, "slurm-7"),
        ({**recorded.BATCH, "SLURM_CLUSTER_NAME": "other"}, "other-43"),
        ({**recorded.BATCH, "SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3"}, "pilot-43-a40_3"),
        (recorded.CHAINED, "pilot-15-a14_5"),
        (pod(job=UID, pod="p"), UID),
        (pod(0, job=UID), UID),
        (pod(3, job=UID), f"{UID}-i3"),
        (pod(jobset="set", job=UID), "set"),
        (pod_of_set("train-nodes-0"), "set-train-nodes-0"),
        (pod_of_set("train-nodes-0", 3), "set-train-nodes-0-i3"),
        (pod_of_set("x" * 65), "set"),
        (pod_of_set("x", uid=""), UID),
        (pod(pod="p"), "p"),
        ({**recorded.BATCH, **pod(3, job=UID)}, "pilot-43"),
    ],
)
def test_job_names_run(environ: Mapping[str, str], expected: str) -> None:
    """The first launch of a job has its name, with step and task where they are not the first."""
    assert name_of(environ) == expected


@pytest.mark.parametrize(
    "environ", [{}, {"SLURM_JOB_ID": "x"}, {"JOB_COMPLETION_INDEX": "1"}, pod(job=""), pod(job="x" * 65)]
)
def test_no_job_names_nothing(environ: Mapping[str, str]) -> None:
    """Without a job, or with an index alone, a run is named as without a scheduler."""
    assert scheduled_job(environ, resource_attributes(environ)) is None


def test_launches_are_counted() -> None:
    """Each launch of one start has a name of its own, asked once or twice; after a requeue they come again."""
    names = [name_of(recorded.BATCH, launch) for launch in ("a", "b", "a", "c")]
    assert names == ["pilot-43", "pilot-43-l2", "pilot-43", "pilot-43-l3"]
    requeued = {**recorded.BATCH, "SLURM_RESTART_COUNT": "1"}
    assert [name_of(requeued, launch) for launch in ("d", "e")] == ["pilot-43", "pilot-43-l2"]


def test_container_restart_counts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pod whose container starts again, the first launch is the run's again."""
    first = name_of(pod(pod="p"))
    assert [first, name_of(pod(pod="p"), "two")] == ["p", "p-l2"]
    monkeypatch.setattr(scheduler, "start_time", lambda _: 1)
    assert name_of(pod(pod="p"), "three") == "p"


def test_remembered_launches_are_bounded(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest of many launches are forgotten, not the newest."""
    monkeypatch.setattr(scheduler, "_KEPT", 4)
    names = [name_of({**recorded.BATCH, "SLURM_JOB_ID": str(job)}, "x") for job in range(20)]
    assert names == [f"pilot-{job}" for job in range(20)]
    (path,) = base.glob("*/launches")
    assert 4 <= len(path.read_text().splitlines()) <= 8
    assert path.stat().st_mode & 0o077 == 0
    assert name_of({**recorded.BATCH, "SLURM_JOB_ID": "19"}, "y") == "pilot-19-l2"


def test_torn_line_hides_no_launch(base: Path) -> None:
    """What follows a line that was half written is remembered: asked again, a launch has the same name."""
    name_of({**recorded.BATCH, "SLURM_JOB_ID": "7"})
    (path,) = base.glob("*/launches")
    path.write_text(path.read_text()[:-3])
    assert [name_of(recorded.BATCH, launch) for launch in ("a", "b", "a")] == ["pilot-43", "pilot-43-l2", "pilot-43"]


def test_unwritable_base_mixes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where launches can't be counted each one has an id of its own, which begins with the job's name."""
    monkeypatch.setattr(scheduler, "default_base", lambda: Path("/nonexistent"))
    names = [name_of(recorded.BATCH) for _ in range(2)]
    assert len(set(names)) == 2
    assert {name[:9] for name in names} == {"pilot-43-"}


def test_first_part_names_run() -> None:
    """Of the processes of a job the first part names the run, whichever is rank 0; the batch script is first."""
    tasks = [{**recorded.TASK, "SLURM_PROCID": str(task)} for task in (3, 1, 1)]
    jobs = [None, *map(job_of, tasks)]
    assert first_part(jobs) == 2
    assert first_part([*jobs, job_of(recorded.BATCH)]) == 4
    assert first_part([None, None]) is None
    pods = [pod_of_set("b"), pod_of_set("a", 1), pod_of_set("a")]
    assert first_part([*map(job_of, pods)]) == 2


@pytest.mark.usefixtures("external_sidecar")
def test_session_takes_jobs_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of a batch script are runs of its job; an id that the user gives overrides that."""
    for name, text in recorded.BATCH.items():
        monkeypatch.setenv(name, text)
    run_ids = []
    for given in (None, "mine", None):
        with otel_train.init(run_id=given, ring_dir=tmp_path / "rings", close_timeout=0.0) as telemetry:
            telemetry.step(1)
            assert telemetry.identity is not None
            run_ids.append(telemetry.identity.run_id)
    assert run_ids == ["pilot-43", "mine", "pilot-43-l2"]
