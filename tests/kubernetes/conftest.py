"""The cluster that these tests share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.kube_control import ControlPlane, running_control_plane
from tests.support.kube_deaths import TABLE
from tests.support.kube_job import StartJob, running_kube_job
from tests.support.kube_node import Link, Node, running_dns, running_link, running_node
from tests.support.otlp_endpoint import Endpoint


@pytest.fixture(scope="session")
def link() -> Iterator[Link]:
    """Lay the cable between this machine and the node."""
    with running_link() as laid:
        yield laid


@pytest.fixture(scope="session")
def plane(link: Link) -> Iterator[ControlPlane]:
    """Run a control plane."""
    with tempfile.TemporaryDirectory(prefix="kube-") as folder, running_control_plane(Path(folder), link.host) as plane:
        yield plane


@pytest.fixture(scope="session")
def node(link: Link, plane: ControlPlane) -> Iterator[Node]:
    """Run its node and its DNS, in a folder with a short name: sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="node-") as name:
        folder = Path(name)
        with running_dns(folder, plane, link), running_node(folder, plane, link) as node:
            yield node


@pytest.fixture
def endpoint(link: Link) -> Iterator[Endpoint]:
    """Run a receiver that pods reach."""
    with Endpoint(f"{link.host}:0") as running:
        yield running


@pytest.fixture
def start_job(node: Node, plane: ControlPlane, endpoint: Endpoint, tmp_path: Path) -> StartJob:
    """Return what starts a job of the node whose sidecar sends to the receiver."""
    assert node.name
    home = tmp_path / tmp_path.name.replace("_", "-").strip("-")
    return partial(running_kube_job, plane, home, f"http://{endpoint.address}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was recorded and what arrived."""
    if TABLE:
        terminalreporter.section("death | recorded | arrived | twice | lost")
        for line in TABLE:
            terminalreporter.write_line(line)
