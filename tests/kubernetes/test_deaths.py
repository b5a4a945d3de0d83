"""Jobs with a native sidecar on a real kubelet, which end in each way: what their ranks recorded arrives once."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from otel_train.catalogue import rows
from tests.support.kube_deaths import IN_FLIGHT, count
from tests.support.kube_job import LONG, KubeJob, StartJob, claim, start_sender
from tests.support.manifests import FOLDER, parsed
from tests.support.otlp_endpoint import Endpoint, Refusal
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]
LAST = 60
"""The step after which it goes wrong: three seconds of training."""
PAGE = FOLDER.parents[1] / "docs" / "how-to" / "kubernetes.md"
UNAVAILABLE = Refusal(grpc.StatusCode.UNAVAILABLE, 503)


def test_normal_end_arrives(start_job: StartJob, endpoint: Endpoint) -> None:
    """The sidecar is told to end after the ranks, sends the rest, and the job is complete."""
    with start_job() as job:
        job.reach(LAST)
        job.stop()
        job.await_condition("Complete")
        (attempt,) = count("normal end", job, endpoint)
    assert attempt.lost == []
    assert set(attempt.values(rows.SESSION_FAILED.name)) == {0}


def delete_pod(job: KubeJob, name: str) -> None:
    """Delete a pod, as a user does, a pre-emption and a drained node."""
    job.kubectl("delete", "pod", name, "--wait=false")


def evict_pod(job: KubeJob, name: str) -> None:
    """Evict a pod by the API, as a drain does."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": job.namespace}}
    path = f"/api/v1/namespaces/{job.namespace}/pods/{name}/eviction"
    job.kubectl("create", f"--raw={path}", "--filename=-", text=json.dumps(eviction))


def suspend_job(job: KubeJob, _: str) -> None:
    """Suspend the job and let it go on, as a queue of jobs does."""
    job.kubectl("patch", "job", "train", '--patch={"spec":{"suspend":true}}')
    wait_until(lambda: not job.pods(), LONG, "the pods' end", pause=0.5)
    job.kubectl("patch", "job", "train", '--patch={"spec":{"suspend":false}}')


@pytest.mark.parametrize("end", [delete_pod, evict_pod, suspend_job])
def test_ended_pods_steps_arrive(end: Callable[[KubeJob, str], None], start_job: StartJob, endpoint: Endpoint) -> None:
    """Ranks and sidecar end within one grace period; the job's next pod is another attempt of the run."""
    with start_job() as job:
        job.reach(LAST)
        end(job, job.pods()[0]["metadata"]["name"])
        job.reach(LAST, 1)
        job.stop(1)
        job.await_condition("Complete")
        attempts = count(end.__name__.replace("_", " "), job, endpoint)
    assert [attempt.lost for attempt in attempts] == [[], []]


def test_evicted_pods_steps_arrive(start_job: StartJob, endpoint: Endpoint) -> None:
    """The kubelet gives a pod that takes too much disk one second; then everything is killed."""
    limits = {"resources": {"limits": {"ephemeral-storage": "16Mi"}}}
    with start_job(train=limits, backoffLimit=0) as job:
        job.reach(LAST)
        job.write(64 * 2**20)
        job.await_condition("Failed")
        assert [pod["status"].get("reason") for pod in job.pods()] == ["Evicted"]
        (attempt,) = count("evicted by the kubelet: 1 s", job, endpoint)
    assert len(attempt.lost) <= 20


def test_time_limit_loses_nothing(start_job: StartJob, endpoint: Endpoint) -> None:
    """A job that takes too long is ended as a deleted pod is."""
    with start_job(activeDeadlineSeconds=25) as job:
        job.reach(LAST)
        job.await_condition("Failed")
        assert job.conditions()["Failed"] == "DeadlineExceeded"
        job.await_pods_end()
        (attempt,) = count("time limit", job, endpoint)
    assert attempt.lost == []


def test_killed_sidecar_repeats_nothing(start_job: StartJob, endpoint: Endpoint) -> None:
    """The kubelet starts it again, and it goes on where the rings say."""
    with start_job() as job:
        job.reach(LAST)
        job.kill("/bin/otel-train", signal.SIGKILL)
        job.reach(2 * LAST)
        job.stop()
        job.await_condition("Complete")
        (attempt,) = count("sidecar: kill -9", job, endpoint)
        (status,) = job.pods()[0]["status"]["initContainerStatuses"]
    assert attempt.lost == []
    assert status["restartCount"] == 1


@pytest.mark.parametrize(("wrong", "rank"), [("raise", 1), ("kill", 0), ("kill", 1)])
def test_failed_attempts_arrive(wrong: str, rank: int, start_job: StartJob, endpoint: Endpoint) -> None:
    """Each of a job's retries is an attempt of one run, and what it recorded until its end arrives."""
    arguments = ("--wrong", wrong, "--at", str(LAST), "--on", str(rank))
    with start_job(*arguments, backoffLimit=1) as job:
        job.await_condition("Failed")
        attempts = count(f"rank {rank}: {wrong}, twice", job, endpoint)
    assert len(attempts) == 2
    assert [len(attempt.lost) <= IN_FLIGHT for attempt in attempts] == [True, True]
    code = 1 if wrong == "raise" else 137
    assert [code in attempt.values(rows.SESSION_FAILED.name) for attempt in attempts] == [True, True]


def test_killed_container_loses_nothing(start_job: StartJob, endpoint: Endpoint) -> None:
    """All processes of the training container die at once; the sidecar sends what their rings have."""
    with start_job(backoffLimit=0) as job:
        job.reach(LAST)
        job.kill("torch.distributed.run", signal.SIGKILL)
        job.await_condition("Failed")
        (attempt,) = count("training container: kill -9", job, endpoint)
    assert len(attempt.lost) <= IN_FLIGHT


def test_receiver_comes_after_job(start_job: StartJob, endpoint: Endpoint) -> None:
    """What nobody took while the job ran is sent within the pod's grace period."""
    endpoint.refusal = UNAVAILABLE
    with start_job() as job:
        job.reach(LAST)
        job.stop()
        wait_until(lambda: job.is_ended("train"), LONG, "the training's end", pause=0.2)
        assert endpoint.points == []
        endpoint.refusal = None
        job.await_condition("Complete")
        (attempt,) = count("receiver away while the job runs", job, endpoint)
    assert attempt.lost == []


def test_pod_takes_rings_along(start_job: StartJob, endpoint: Endpoint) -> None:
    """Where the receiver is away for longer than the grace period, a volume that goes with the pod takes them along."""
    endpoint.refusal = UNAVAILABLE
    with start_job(grace=5) as job:
        job.reach(LAST)
        job.stop()
        job.await_condition("Complete")
        endpoint.refusal = None
        assert "giving up; records that are not sent stay in /rings/job" in job.log("otel-train-sidecar")
        (attempt,) = count("receiver away for longer than the grace period", job, endpoint)
    assert attempt.lost == attempt.recorded


def test_claimed_rings_are_sent_later(start_job: StartJob, endpoint: Endpoint, tmp_path: Path) -> None:
    """On a volume that outlives the pod they wait for whoever sends them: here the job that the page shows."""
    endpoint.refusal = UNAVAILABLE
    with start_job(rings={"persistentVolumeClaim": {"claimName": "rings"}}, grace=5) as job:
        claim(job, tmp_path / "disk")
        job.reach(LAST)
        job.stop()
        job.await_condition("Complete")
        assert endpoint.points == []
        endpoint.refusal = None
        blocks = re.findall(r"```yaml\n(apiVersion: batch/v1\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        start_sender(job, parsed(blocks[-1]), f"http://{endpoint.address}")
        job.await_condition("Complete", "send-rings")
        (attempt,) = count("the same, rings on a claim, then `otel-train send`", job, endpoint)
    assert attempt.lost == []


def test_small_volume_loses_nothing(start_job: StartJob, endpoint: Endpoint) -> None:
    """A volume that has no room for rings of the usual size has room for smaller ones."""
    with start_job(rings={"emptyDir": {"medium": "Memory", "sizeLimit": "512Ki"}}) as job:
        job.reach(LAST)
        job.stop()
        job.await_condition("Complete")
        (attempt,) = count("volume of 512 KiB", job, endpoint)
    assert attempt.lost == []
