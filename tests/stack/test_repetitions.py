"""A real Prometheus that is sent the same records again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from otel_train.catalogue import rows
from otel_train.catalogue.series_names import cluster_series, rank_series
from otel_train.otlp.answers import Answer, Verdict
from otel_train.otlp.exporter import Exporter
from otel_train.ring import Kind, RingReader
from otel_train.smoke.child_process import running_process
from tests.stack.conftest import Prometheus
from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.ports import answers, free_port
from tests.support.rank_ring import Rank, feeds, sender
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack
STEPS = 60


class Forgetful:
    """An exporter whose acknowledgement is lost where it is told."""

    def __init__(self) -> None:
        self.exporter = Exporter()
        self.lose = False
        self.refusals: list[Answer] = []

    def send(self, body: bytes) -> Answer:
        """Send a request."""
        answer = self.exporter.send(body)
        if not answer.taken:
            self.refusals.append(answer)
        return Answer(verdict=Verdict.WAIT, cause="lost", unanswered=True) if self.lose else answer


def test_prometheus_keeps_each_step_through_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With our configuration a request that is built again after a kill is taken: nothing in it has another value."""
    address = f"127.0.0.1:{free_port()}"
    command = [
        str(programs.prometheus()),
        f"--config.file={programs.ROOT}/prometheus/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/prometheus",
        f"--web.listen-address={address}",
        "--web.enable-otlp-receiver",
    ]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{address}/api/v1/otlp")
    (tmp_path / "rings").mkdir()
    with running_process(command, tmp_path / "log", clean_environment()):
        wait_until(lambda: answers(f"http://{address}/-/ready"), 60, "Prometheus' start", log=tmp_path / "log")
        exporter = Forgetful()
        rank = Rank(tmp_path / "rings", records=256, first_time=time.time_ns() - 120 * 10**9)
        for step in range(1, STEPS + 1):
            rank.record(step, kind=Kind.BOTH)
            if step % 10 == 0:
                exporter.lose = step % 20 == 0
                # Each of them is a sidecar that was just started.
                sender(exporter, tmp_path).send_all(feeds(tmp_path / "rings"))
        exporter.lose = False
        sender(exporter, tmp_path).send_all(feeds(tmp_path / "rings"))
        prometheus = Prometheus(f"http://{address}")
        for name in (rank_series(rows.STEP), cluster_series(rows.PICKS)):
            assert [len(found) for found in prometheus.samples(name).values()] == [STEPS], name
    assert (exporter.refusals, RingReader(rank.ring.path).cursor.position) == ([], STEPS)
