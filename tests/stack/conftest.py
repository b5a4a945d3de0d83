"""The compose stack under a real engine, and single programs of it."""

from __future__ import annotations

import io
import json
import secrets
import subprocess
import tarfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from otel_train.bridge import HistoryRow, read_history, wandb_files
from tests.support import stack_images as images
from tests.support import stack_programs as programs

PROJECT = "otel-train-test"
SERVICES = ("collector", "prometheus", "wandb-bridge")
"""All but Grafana, which is not to be had here."""
PROMETHEUS = "http://127.0.0.1:9090"
ENDPOINT = "http://127.0.0.1:4317"


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Return Prometheus' promtool."""
    return programs.promtool()


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus to be asked."""

    url: str

    def get(self, path: str, **parameters: str | float) -> Any:
        """Return the data of an answer."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def samples(self, selector: str, window: str = "1h") -> dict[tuple[tuple[str, str], ...], list[tuple[int, float]]]:
        """Return the raw samples (milliseconds, value) of each series, by its labels."""
        found = self.get("query", query=f"{selector}[{window}]")["result"]
        return {
            tuple(sorted(series["metric"].items())): [
                (round(float(at) * 1000), float(value)) for at, value in series["values"]
            ]
            for series in found
        }

    def firing(self, run_id: str) -> set[str]:
        """Return the names of a run's firing alerts."""
        alerts = self.get("alerts")["alerts"]
        return {
            each["labels"]["alertname"]
            for each in alerts
            if each["state"] == "firing" and each["labels"].get("train_run_id") == run_id
        }


@dataclass(frozen=True)
class Stack:
    """The running stack."""

    client: docker.DockerClient
    environment: Mapping[str, str]
    prometheus: Prometheus = Prometheus(PROMETHEUS)

    def compose(self, *arguments: str) -> str:
        """Run `docker compose` on the project and return what it printed.

        Raises:
            RuntimeError: It failed; the message holds its complaint.
        """
        command = ["docker", "compose", "--project-name", PROJECT, *arguments]
        done = subprocess.run(
            command, cwd=programs.ROOT, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-4000:]}")
        return done.stdout

    def container(self, service: str) -> Any:
        """Return a service's container."""
        labels = [f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}"]
        (found,) = self.client.containers.list(all=True, filters={"label": labels})
        return found

    def wandb_rows(self, run_id: str, folder: Path) -> list[HistoryRow]:
        """Copy the bridge's wandb files to a folder and return a run's rows, of all files."""
        data, _ = self.container("wandb-bridge").get_archive("/var/lib/otel_train/wandb")
        with tarfile.open(fileobj=io.BytesIO(b"".join(data))) as archive:
            # The logs beside them are links, some to absolute paths.
            archive.extractall(folder, [each for each in archive if each.name.endswith(".wandb")], filter="data")
        return [row for path in wandb_files(folder, run_id) for row in read_history(path)]


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Bring the stack up from docker-compose.yml, with images made here where none are, and take it away again."""
    client = docker.from_env()
    images.prepare(client)
    environment = images.docker_config() | {
        "GRAFANA_ADMIN_PASSWORD": secrets.token_urlsafe(),
        "OTEL_TRAIN_BRIDGE_TOKEN": secrets.token_urlsafe(),
    }
    running = Stack(client, environment)
    running.compose("down", "--volumes", "--remove-orphans")
    try:
        running.compose("up", "--detach", "--no-build", "--pull=never", "--wait", "--wait-timeout=120", *SERVICES)
        yield running
    finally:
        logs = programs.CACHE / "stack.log"
        logs.write_text(running.compose("logs", "--no-color", "--timestamps"))
        running.compose("down", "--volumes", "--remove-orphans")
