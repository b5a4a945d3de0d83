"""The receiver is absent, dead, silent, unwilling, or cuts connections: two jobs, over gRPC and over HTTP, meet it all.

The faults follow each other with calm between them, and the ranks leave while the receiver is silent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import grpc
import pytest

from otel_train.bridge import HistoryRow
from tests.support.fault_job import Job, Window, assert_each_once, of_steps, running_job
from tests.support.otlp_endpoint import Endpoint, Refusal, running_endpoint
from tests.support.pipeline import Pipeline
from tests.support.ports import free_port
from tests.support.proxy import Mode, Proxy
from tests.support.step_times import compare

pytestmark = pytest.mark.faults
PROTOCOLS = {"grpc": "grpc", "http": "http/protobuf"}
OUTAGE = 60
"""Steps."""


@dataclass
class Site:
    """The jobs and what is between them and the collector."""

    pipeline: Pipeline
    unwilling: Endpoint
    proxies: dict[str, Proxy] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    windows: dict[str, Window] = field(default_factory=dict)
    history: dict[str, list[HistoryRow]] = field(default_factory=dict)

    def set(self, mode: Mode) -> None:
        """Set both proxies, on the way to the collector."""
        self.proxies["grpc"].set(mode, self.pipeline.grpc_port)
        self.proxies["http"].set(mode, self.pipeline.http_port)

    def refuse(self, refusal: Refusal) -> None:
        """Let an endpoint stand in the collector's place that refuses everything."""
        self.unwilling.refusal, self.unwilling.refused = refusal, 0
        self.proxies["grpc"].set(Mode.PASS, self.unwilling.grpc_port)
        self.proxies["http"].set(Mode.PASS, self.unwilling.http_port)

    def go_on(self, steps: int) -> None:
        """Wait for so many steps of both jobs."""
        for job in self.jobs.values():
            job.go_on(steps)

    def catch_up(self) -> None:
        """Wait until both sidecars have sent all that there is now."""
        for job in self.jobs.values():
            job.catch_up()


def absent(site: Site) -> None:
    site.go_on(OUTAGE)
    site.pipeline.start_collector()


def killed(site: Site) -> None:
    site.pipeline.collector.kill()
    site.go_on(OUTAGE)
    site.pipeline.start_collector()


def silent(site: Site) -> None:
    site.set(Mode.HANG)
    # Longer than a request's timeout.
    site.go_on(2 * OUTAGE)
    assert all(proxy.spoiled for proxy in site.proxies.values())


def reset(site: Site) -> None:
    site.set(Mode.RESET)
    site.go_on(2 * OUTAGE)
    assert all(proxy.spoiled > 3 for proxy in site.proxies.values())


def unavailable(site: Site) -> None:
    refused(site, Refusal(grpc.StatusCode.UNAVAILABLE, 503))


def exhausted(site: Site) -> None:
    refused(site, Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 429))


def refused(site: Site, refusal: Refusal) -> None:
    site.refuse(refusal)
    site.go_on(OUTAGE)
    assert site.unwilling.refused >= 2


FAULTS: tuple[Callable[[Site], None], ...] = (absent, killed, silent, reset, unavailable, exhausted)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run both jobs through all faults, the last of which they do not see the end of."""
    home = tmp_path_factory.mktemp("endpoints")
    with running_endpoint() as endpoint, running_endpoint() as unwilling, ExitStack() as jobs:
        pipeline = Pipeline(home, endpoint)
        jobs.callback(pipeline.stop)
        pipeline.bridge.start()
        site = Site(pipeline, unwilling)
        site.proxies = {"grpc": Proxy(free_port(), pipeline.grpc_port), "http": Proxy(free_port(), pipeline.http_port)}
        for name, protocol in PROTOCOLS.items():
            target = f"http://127.0.0.1:{site.proxies[name].port}"
            environment = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
            site.jobs[name] = jobs.enter_context(running_job(home / name, target, environment=environment))
        site.go_on(1)
        for fault in FAULTS:
            begin = time.monotonic_ns()
            fault(site)
            site.windows[fault.__name__] = begin, time.monotonic_ns()
            site.set(Mode.PASS)
            site.catch_up()
            site.go_on(40)
        site.set(Mode.HANG)
        steps = {name: job.stop() for name, job in site.jobs.items()}
        site.set(Mode.PASS)
        for name, job in site.jobs.items():
            job.await_sidecars_end()
            site.history[name] = pipeline.rows(name, steps[name])
        yield site


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fault", [fault.__name__ for fault in FAULTS])
def test_fault_loses_no_step(fault: str, protocol: str, site: Site) -> None:
    """Steps wait in the ring until the receiver takes them, and arrive once."""
    job, window = site.jobs[protocol], site.windows[fault]
    compare(f"{fault}, {protocol}", job, window, site.windows.values())
    steps = job.steps_within(window)
    assert_each_once(of_steps(site.history[protocol], steps), steps)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ranks_leave_a_silent_receiver(protocol: str, site: Site) -> None:
    """They wait 2 s at most, and a busy machine's while; the sidecar stays and sends the rest, every step once."""
    job = site.jobs[protocol]
    assert all(job.close_seconds(rank) < 6 for rank in job.ranks)
    assert_each_once(site.history[protocol], range(1, job.step() + 1))
