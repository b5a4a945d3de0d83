"""A job straight into real stores, without a collector: an answer is lost, and a sidecar killed before it hears one."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from otel_train.catalogue import Metric, rows
from otel_train.catalogue.series_names import cluster_series, rank_series
from otel_train.diagnose.examine import examine
from otel_train.diagnose.finding import WRONG
from otel_train.read.load import load
from otel_train.render import alerts
from otel_train.render.dashboards import Query, queries
from otel_train.ring import RingReader, ring_files
from otel_train.smoke.child_process import running_process
from tests.support.environment import clean_environment
from tests.support.otlp_http import Response, http_server
from tests.support.panel_queries import answer
from tests.support.prometheus import Prometheus, Store, running_prometheus
from tests.support.thanos import PROMOTED, WINDOW, running_thanos
from tests.support.train_job import make_train
from tests.support.victoria_metrics import NAMES, ONCE, running_victoria_metrics
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stores
STEPS = 300
LOSS = Metric("train/loss")
STEP = rank_series(rows.STEP)
PROMETHEUS, VICTORIA_METRICS, THANOS = "Prometheus", "VictoriaMetrics", "Thanos"
DOUBLING = f"{VICTORIA_METRICS} without deduplication"


def started(
    run: Callable[[Path], AbstractContextManager[Prometheus]], path: str
) -> Callable[[Path], AbstractContextManager[Store]]:
    """Return what runs a store that takes OTLP at a path of the address at which it answers queries."""

    @contextmanager
    def running(folder: Path) -> Iterator[Store]:
        with run(folder) as store:
            yield Store(store.url + path, store)

    return running


OF_PROMETHEUS, OF_VICTORIA_METRICS = "/api/v1/otlp/v1/metrics", "/opentelemetry/v1/metrics"
STORES = {
    PROMETHEUS: started(running_prometheus, OF_PROMETHEUS),
    VICTORIA_METRICS: started(lambda folder: running_victoria_metrics(folder, NAMES, ONCE), OF_VICTORIA_METRICS),
    DOUBLING: started(lambda folder: running_victoria_metrics(folder, NAMES), OF_VICTORIA_METRICS),
}
if os.environ.get("THANOS"):  # building it takes minutes
    STORES[THANOS] = lambda folder: running_thanos(folder, WINDOW, *PROMOTED)


class Relay:
    """Hands requests on to a store, and answers as it does, but for some of them.

    Args:
        url: The store's.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.refusals: list[str] = []
        self.loses_next = True
        """Whether the next answer is lost on its way."""
        self.kills = 0
        """The process that is killed when the answer after that has come."""

    def respond(self, body: bytes) -> Response:
        """Return the store's answer to a request, or that none came."""
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/x-protobuf"})
        try:
            urllib.request.urlopen(request, timeout=30).close()
        except urllib.error.HTTPError as error:
            self.refusals.append(f"{error.code} {error.read()!r}")
            return Response(error.code)
        if self.loses_next:
            self.loses_next = False
            return Response(504)
        if self.kills:
            os.kill(self.kills, signal.SIGKILL)
            self.kills = 0
        return Response()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the rings of a job of 300 steps, which lie in different milliseconds: stores keep no more of a time."""
    folder = tmp_path_factory.mktemp("job")
    with pytest.MonkeyPatch.context() as patch:
        make_train(patch)(folder / "rings", steps=STEPS, streams=12, pause=0.003)
    return folder / "rings"


@pytest.fixture(scope="module")
def stores(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Prometheus]]:
    """Run the stores, and deliver the job to each."""
    folders = {name: tmp_path_factory.mktemp("store") for name in STORES}
    with ExitStack() as running:
        begun = {name: running.enter_context(STORES[name](folder)) for name, folder in folders.items()}
        for name, store in begun.items():
            deliver(job, folders[name], store)
        yield {name: store.querier for name, store in begun.items()}


def deliver(job: Path, folder: Path, store: Store) -> None:
    """Deliver the job to a store: one answer is lost, and the sidecar killed at the next one."""
    rings, log = Path(shutil.copytree(job, folder / "rings")), folder / "sidecar.log"
    readers = [RingReader(file) for file in ring_files(rings)]
    relay = Relay(store.receiver)
    with http_server(relay.respond) as server:
        environment = clean_environment(
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"http://127.0.0.1:{server.server_port}/v1/metrics",
        )
        command = [sys.executable, "-m", "otel_train", "sidecar", str(rings), "--rank-interval=0"]
        with running_process(command, folder / "killed.log", environment) as sidecar:
            relay.kills = sidecar.pid
            assert sidecar.wait(60) == -signal.SIGKILL
        assert any(reader.cursor.position < STEPS for reader in readers)
        with running_process(command, log, environment):
            wait_until(lambda: all(reader.cursor.position == STEPS for reader in readers), 60, "delivery", log=log)
    assert relay.refusals == []
    # VictoriaMetrics shows what it has taken some seconds later.
    wait_until(lambda: times_of(store.querier, STEP) == STEPS, 30, "all steps in the store")


def times_of(store: Prometheus, series: str) -> int:
    """Return at how many times a store has samples of a series."""
    return len({when for samples in store.samples(series).values() for when, _ in samples})


@pytest.mark.parametrize("name", STORES)
def test_stores_have_each_step(name: str, job: Path, stores: dict[str, Prometheus]) -> None:
    """Values and times of all keys are those of the rings, and what is read of a store holds nothing twice."""
    stored, recorded = load(stores[name].url).history, load(str(job)).history
    assert [*stored.cluster.steps] == [*recorded.cluster.steps] == [*range(1, STEPS + 1)]
    assert [time // 10**6 for time in stored.cluster.times_ns] == [time // 10**6 for time in recorded.cluster.times_ns]
    assert recorded.cluster.values.keys() - stored.cluster.values.keys() == {LOSS.name}  # a user's are not read
    for key in stored.cluster.values:
        assert stored.cluster.column(key) == pytest.approx(recorded.cluster.column(key), rel=1e-12, nan_ok=True), key
    assert stored.reuse[:-1] == recorded.reuse[:-1]
    assert [*stored.ranks[0].steps] == [*recorded.ranks[0].steps]


@pytest.mark.parametrize("name", STORES)
def test_doubled_samples_change_no_verdict(name: str, job: Path, stores: dict[str, Prometheus]) -> None:
    """Doctor judges what a store has as it judges the rings, also where repetitions are kept; only one keeps them."""

    def wrong(source: str) -> dict[str, str]:
        findings = examine(load(source).history)
        return {finding.check: finding.severity for finding in findings if finding.severity in WRONG}

    assert wrong(stores[name].url) == wrong(str(job)) != {}
    kept = sum(map(len, stores[name].samples(cluster_series(LOSS)).values()))
    assert (kept > STEPS) == (name == DOUBLING)


def test_dashboards_find_their_series(stores: dict[str, Prometheus]) -> None:
    """Every query of dashboards and alerts that answers with Prometheus does so with each other store."""

    def answering(store: Prometheus) -> set[str]:
        shown = {str(query) for query in queries() if answer(store, query, "run-1")}
        asked = {alert.expression for alert in alerts()}
        return shown | {text for text in asked if store.get("query", query=text, nocache="1")["result"]}

    expected = answering(stores[PROMETHEUS])
    differing = {name: answering(stores[name]) ^ expected for name in STORES}
    assert {name: texts for name, texts in differing.items() if texts} == {}
    assert len(expected) > 50


@pytest.mark.parametrize(
    "query", [query for query in queries() if query.dashboard == "ledger"], ids=lambda query: query.panel
)
def test_doubled_samples_double_no_panel(query: Query, stores: dict[str, Prometheus]) -> None:
    """Where samples are kept twice an average weighs them so, and nothing is a multiple of what it was."""

    def last(name: str) -> dict[str, float]:
        return {
            str(series["metric"]): float(series["values"][-1][1]) for series in answer(stores[name], query, "run-1")
        }

    assert last(DOUBLING) == pytest.approx(last(VICTORIA_METRICS), rel=0.1)
