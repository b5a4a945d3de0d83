"""docker-compose.yml as a whole: it is valid, pins what it runs, and keeps to this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

import pytest

from tests.support import stack_images as images
from tests.support.compose_stack import Stack
from tests.support.stack_programs import ROOT

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
SECRETS = {"GRAFANA_ADMIN_PASSWORD": "a-password", "OTEL_TRAIN_BRIDGE_TOKEN": "a-token"}


def config(**environment: str) -> subprocess.CompletedProcess[str]:
    """Return what `docker compose config` makes of the file, every profile included."""
    own = {name: value for name, value in images.docker_config().items() if name not in SECRETS}
    command = ["docker", "compose", "--profile=train", "--env-file", os.devnull, "config", "--format=json"]
    return subprocess.run(
        command, cwd=ROOT, env=own | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Return the services, with Grafana and the training job."""
    done = config(**SECRETS)
    assert done.returncode == 0, done.stderr
    configured: dict[str, Any] = json.loads(done.stdout)["services"]
    assert set(configured) == {"collector", "prometheus", "grafana", "wandb-bridge", "train"}
    return configured


def test_nothing_listens_beyond_this_machine(services: dict[str, Any]) -> None:
    """Every published port is loopback's."""
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_services_are_bounded(services: dict[str, Any]) -> None:
    """Each has a read-only root, no capabilities, and, if it stays, limits on memory and processors."""
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"]), name
        assert name == "train" or service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name


def test_writable_mounts_are_volumes(services: dict[str, Any]) -> None:
    """All data that must survive is in named volumes."""
    mounts = {name: service["volumes"] for name, service in services.items()}
    writable = {
        name: [volume["type"] for volume in volumes if not volume.get("read_only")] for name, volumes in mounts.items()
    }
    assert all(types in ([], ["volume"]) for types in writable.values()), writable


@pytest.mark.parametrize("missing", SECRETS)
def test_missing_password_is_named(missing: str) -> None:
    """There is no default, and the message says what to do."""
    done = config(**{name: value for name, value in SECRETS.items() if name != missing})
    assert done.returncode != 0
    assert f"{missing}" in done.stderr
    assert "copy .env.example to .env and fill it in" in done.stderr


def test_collector_parts_fit_each_other() -> None:
    """All parts of the distribution are of one release."""
    text = (ROOT / "collector/builder.yaml").read_text()
    (version,) = re.findall(r"^  version: ([0-9.]+)$", text, re.MULTILINE)
    assert set(re.findall(r" v(0\.[0-9.]+)$", text, re.MULTILINE)) == {version, "0.0.0"}


def test_bridge_container_is_confined(stack: Stack) -> None:
    """It runs as a user of its own, on a root file system that it can't change, with no torch in it."""
    code = (
        "import importlib.util, os\n"
        "print(os.getuid(), importlib.util.find_spec('torch'), os.access('/', os.W_OK), os.access('/etc', os.W_OK))"
    )
    answer = stack.container("wandb-bridge").exec_run(["python", "-c", code])
    assert answer.output.decode().split() == ["10001", "None", "False", "False"]
