"""Time of a step from `telemetry.step` to an answer of Prometheus and to wandb's file, all at the defaults.

A job of two ranks under torchrun, its sidecar, the collector with the configuration of the compose stack, Prometheus
with its own, and the bridge: the real programs, each a process. A step's time stamp is taken in `telemetry.step`. It is
over when a query returns the cluster-wide sample of that time stamp, and when the row stands in the `.wandb` file.
Both are looked at each 50 ms, and what a look takes is part of the result.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.measure import Figures, Goal, Section, quantile
from benchmarks.processes import HOST, environment, python, running
from otel_train.bridge import wandb_files
from otel_train.bridge.wandb_file import TransactionLog
from otel_train.catalogue import rows
from otel_train.render.promql import cluster_series
from tests.support import stack_programs as programs
from tests.support.ports import answers, free_port
from tests.support.waiting import wait_until

LIMIT = 2.0
LOOK = 0.05
PACE = 0.1
RUN_ID = "bench"
START = 50
"""Steps that are counted apart: the sidecar starts, and the bridge loads wandb, with the first ones."""
PROMETHEUS, WANDB = "a query of Prometheus returns it", "it stands in the .wandb file"
_PORTS = """
extensions: {{health_check: {{endpoint: "{host}:{health}"}}}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "{host}:{grpc}"}}, http: {{endpoint: "{host}:{http}"}}}}}}}}
service: {{telemetry: {{metrics: {{level: none, readers: []}}}}}}
"""


@contextmanager
def stack(home: Path) -> Iterator[tuple[str, str, Path]]:
    """Run bridge, Prometheus and collector; give the collector's endpoint, Prometheus' and the bridge's state."""
    bridge, prometheus, grpc, http, health = (free_port() for _ in range(5))
    token, state, url = secrets.token_urlsafe(), home / "bridge", f"http://{HOST}:{prometheus}"
    commands = {
        "bridge": python("otel_train", "bridge", f"--listen={HOST}:{bridge}", f"--state={state}", f"--token={token}"),
        "prometheus": [
            str(programs.prometheus()),
            f"--config.file={programs.ROOT}/prometheus/prometheus.yml",
            f"--storage.tsdb.path={home / 'tsdb'}",
            "--web.enable-otlp-receiver",
            f"--web.listen-address={HOST}:{prometheus}",
        ],
        "collector": [
            str(programs.collector()),
            f"--config={programs.ROOT}/collector/local.yaml",
            f"--config=yaml:{_PORTS.format(host=HOST, health=health, grpc=grpc, http=http)}",
        ],
    }
    variables = {
        "OTEL_TRAIN_PROMETHEUS": url,
        "OTEL_TRAIN_BRIDGE": f"{HOST}:{bridge}",
        "OTEL_TRAIN_BRIDGE_TOKEN": token,
        "OTEL_TRAIN_QUEUE_DIR": str(home / "queue"),
    }
    with ExitStack() as started:
        for name, command in commands.items():
            started.enter_context(running(command, home / f"{name}.log", environment(**variables)))
        wait_until((state / "address").exists, 60, "the bridge's start", log=home / "bridge.log")
        wait_until(lambda: answers(f"{url}/-/ready"), 60, "Prometheus' start", log=home / "prometheus.log")
        wait_until(lambda: answers(f"http://{HOST}:{health}"), 60, "the collector's start", log=home / "collector.log")
        yield f"http://{HOST}:{grpc}", url, state


class Arrivals:
    """Looks again and again which time stamps have come, and notes how old each was then."""

    def __init__(self, look: Callable[[], list[int]]) -> None:
        self.ages: dict[int, float] = {}
        """Seconds, by the time stamp in milliseconds."""
        self._look = look
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK):
            stamps = self._look()
            now = time.time()
            for stamp in stamps:
                self.ages.setdefault(stamp, now - stamp / 1000)

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()


def prometheus_stamps(url: str) -> Callable[[], list[int]]:
    """Return what asks Prometheus for the time stamps of the last seconds."""
    query = f'{cluster_series(rows.PICKS)}{{train_run_id="{RUN_ID}"}}[15s]'
    address = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"

    def look() -> list[int]:
        with urllib.request.urlopen(address, timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        return [round(float(at) * 1000) for series in result for at, _ in series["values"]]

    return look


def wandb_stamps(state: Path) -> Callable[[], list[int]]:
    """Return what reads the time stamps that have been added to the run's file."""
    logs: list[TransactionLog] = []

    def look() -> list[int]:
        if not logs:
            logs.extend(map(TransactionLog, wandb_files(state, RUN_ID)))
        return [round(row.timestamp * 1000) for log in logs for row in log.rows()]

    return look


def measure(steps: int) -> Mapping[str, list[float]]:
    """Return how old each step was when it arrived, in the steps' order."""
    with tempfile.TemporaryDirectory() as name, stack(Path(name)) as (endpoint, url, state):
        home = Path(name)
        arrivals = {PROMETHEUS: Arrivals(prometheus_stamps(url)), WANDB: Arrivals(wandb_stamps(state))}
        job = python("torch.distributed.run", "--standalone", "--nproc-per-node=2")
        job += ["-m", "benchmarks.paced_job", str(steps), str(PACE)]
        variables = environment(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_TRAIN_RUN_ID=RUN_ID)
        try:
            with running(job, home / "job.log", variables) as program:
                assert program.process is not None
                program.process.wait(steps * PACE + 120)
                wait_until(
                    lambda: all(len(sink.ages) >= steps for sink in arrivals.values()),
                    30,
                    f"the arrival of {steps} steps ({[len(sink.ages) for sink in arrivals.values()]})",
                    log=home / "job.log",
                )
        finally:
            for sink in arrivals.values():
                sink.end()
    return {name: [age for _, age in sorted(sink.ages.items())] for name, sink in arrivals.items()}


def run(*, quick: bool) -> Section:
    """Measure."""
    rounds, steps = (1, 100) if quick else (2, 600)
    section = Section(
        8,
        "step recorded -> in Prometheus, in the wandb file",
        f"A job of 2 gloo ranks under torchrun with {steps} steps of {PACE * 1000:.0f} ms, its sidecar, the collector "
        "and Prometheus with the compose stack's configurations, and the bridge to wandb offline; all at their "
        f"defaults. From `telemetry.step` to a look, each {LOOK * 1000:.0f} ms, that finds the cluster-wide value; "
        f"without the first {START} steps, with which the sidecar starts and the bridge loads wandb.",
        "s",
    )
    ages: dict[str, list[list[float]]] = {PROMETHEUS: [], WANDB: []}
    for _ in range(rounds):
        for name, once in measure(steps).items():
            ages[name].append(once)
    table = [["", "p50 (s)", "p99 (s)", "max (s)", f"max of the first {START} steps (s)"]]
    for name, rounds_ages in ages.items():
        steady = [one[START:] for one in rounds_ages]
        every = [age for one in steady for age in one]
        section.figures[name] = Figures([quantile(one, 0.5) for one in steady], [quantile(one, 0.99) for one in steady])
        p99 = quantile(every, 0.99)
        first = max(max(one[:START]) for one in rounds_ages)
        table.append([name, *(f"{value:.2f}" for value in (quantile(every, 0.5), p99, max(every), first))])
        section.goals.append(Goal(f"{name}: p99 <= {LIMIT:.0f} s", f"{p99:.2f} s", p99 <= LIMIT))
    section.tables = [table]
    return section
