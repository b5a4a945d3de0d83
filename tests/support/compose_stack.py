"""The stack of docker-compose.yml under a real engine."""

from __future__ import annotations

import io
import secrets
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from otel_train.bridge import HistoryRow, read_history, wandb_files
from tests.support import stack_images as images
from tests.support import stack_programs as programs
from tests.support.prometheus import Prometheus

PROJECT = "otel-train-test"
SERVICES = ("collector", "prometheus", "wandb-bridge")
"""All but Grafana, whose image can't be made here."""
ENDPOINT = "http://127.0.0.1:4317"
PROMETHEUS = Prometheus("http://127.0.0.1:9090")


@dataclass(frozen=True)
class Stack:
    """The running stack."""

    client: docker.DockerClient
    environment: Mapping[str, str]
    prometheus: Prometheus = PROMETHEUS

    def compose(self, *arguments: str) -> str:
        """Run `docker compose` on the project and return its output.

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
        (container,) = self.client.containers.list(all=True, filters={"label": labels})
        return container

    def wandb_rows(self, run_id: str, folder: Path) -> list[HistoryRow]:
        """Copy the bridge's wandb files to a folder and return a run's rows, of all files."""
        data, _ = self.container("wandb-bridge").get_archive("/var/lib/otel_train/wandb")
        with tarfile.open(fileobj=io.BytesIO(b"".join(data))) as archive:
            # The logs beside them are links, some to absolute paths.
            archive.extractall(folder, [member for member in archive if member.name.endswith(".wandb")], filter="data")
        return [row for path in wandb_files(folder, run_id) for row in read_history(path)]


@contextmanager
def running_stack() -> Iterator[Stack]:
    """Bring the stack up, with images made here where there are none, and take it down at the end of the block."""
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
