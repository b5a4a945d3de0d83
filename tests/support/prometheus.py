"""A real Prometheus that takes OTLP, run with our configuration, and its HTTP API."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otel_train.smoke.child_process import running_process
from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.ports import answers, free_port
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus at a URL."""

    url: str

    def get(self, path: str, **parameters: str | float) -> Any:
        """Return the data of an answer."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def samples(self, selector: str, window: str = "1h") -> dict[tuple[tuple[str, str], ...], list[tuple[int, float]]]:
        """Return the raw samples (milliseconds, value) of each series, by its labels."""
        result = self.get("query", query=f"{selector}[{window}]")["result"]
        return {
            tuple(sorted(series["metric"].items())): [
                (round(float(time) * 1000), float(value)) for time, value in series["values"]
            ]
            for series in result
        }

    def export_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the exporters of this process send to it."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{self.url}/api/v1/otlp")


class Store(NamedTuple):
    """A store that takes OTLP, and what answers queries for it."""

    receiver: str
    """URL at which it takes OTLP."""
    querier: Prometheus


CONFIGURATION = programs.ROOT / "prometheus" / "prometheus.yml"


def prometheus_command(folder: Path, address: str, configuration: Path = CONFIGURATION) -> list[str]:
    """Return the command of a Prometheus that has its data in a folder."""
    return [
        str(programs.prometheus()),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder}/prometheus",
        f"--web.listen-address={address}",
        "--web.enable-otlp-receiver",
    ]


@contextmanager
def running_prometheus(folder: Path, configuration: Path = CONFIGURATION) -> Iterator[Prometheus]:
    """Run Prometheus, its data and its log in a folder, until the end of the block."""
    address, log = f"127.0.0.1:{free_port()}", folder / "prometheus.log"
    with running_process(prometheus_command(folder, address, configuration), log, clean_environment()):
        wait_until(lambda: answers(f"http://{address}/-/ready"), 60, "Prometheus' start", log=log)
        yield Prometheus(f"http://{address}")
