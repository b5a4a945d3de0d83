"""A job of two pods, which find each other by the cluster's DNS: one run, also when one of them is replaced."""

from __future__ import annotations

import pytest

from tests.support.kube_deaths import LOSS, arrivals
from tests.support.kube_job import LONG, StartJob
from tests.support.otlp_endpoint import Endpoint
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]
STEPS = 40


def test_pods_are_one_run(start_job: StartJob, endpoint: Endpoint) -> None:
    """Each pod's sidecar sends what its rank wrote, as ranks of one attempt."""
    with start_job("--steps", str(STEPS), pods=2) as job:
        job.await_condition("Complete")
        ((_, points),) = arrivals(endpoint).items()
        recorded = job.steps_over_pods()
    assert recorded == list(range(1, STEPS + 1))
    assert [point.value for point in points if point.name == LOSS] == recorded
    assert {point.instance.rpartition("/")[2] for point in points} >= {"0", "1"}


def test_replaced_pod_continues_run(start_job: StartJob, endpoint: Endpoint) -> None:
    """The other torchrun waits for the new pod; what both made before has arrived, and the run has two attempts."""
    with start_job(pods=2) as job:
        wait_until(lambda: len(job.steps_over_pods()) >= STEPS, LONG, "the first attempt", pause=0.2)
        before = job.steps_over_pods()
        (name,) = (pod["metadata"]["name"] for pod in job.pods() if pod["metadata"]["name"].startswith("train-1-"))
        job.kubectl("delete", "pod", name, "--wait=false")
        wait_until(lambda: len(arrivals(endpoint)) == 2, LONG, "the second attempt", pause=0.5)
        for folder in job.folders():
            (folder / "stop").touch()
        job.await_condition("Complete")
        first, _ = (points for _, points in sorted(arrivals(endpoint).items()))
    steps = [int(point.value) for point in first if point.name == LOSS]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= len(before) - 2
