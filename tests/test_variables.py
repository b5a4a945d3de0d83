"""Variables of the environment with the project's prefix that nothing reads."""

from __future__ import annotations

import logging
import re
import subprocess
from pathlib import Path

import pytest

import otel_train
from otel_train.variables import DEPLOYED, OWN, PREFIX, warning_of_unknown
from tests.support.commands import run_otel_train

ROOT = Path(__file__).parents[1]


def test_known_names_are_all() -> None:
    """Each name in what is shipped, and on the pages, is known, and no other one is."""
    listed = subprocess.run(
        ["git", "ls-files", "otel_train/*.py", "deploy", "collector", "docker-compose.yml", "docs"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {
        name
        for path in listed.stdout.split()
        for name in re.findall(rf"(?<![A-Z_]){PREFIX}([A-Z_]*[A-Z])", (ROOT / path).read_text(errors="replace"))
    }
    assert names == DEPLOYED.union(OWN)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("OTEL_TRAIN_RUNID", "OTEL_TRAIN_RUNID (did you mean OTEL_TRAIN_RUN_ID?);"),
        ("OTEL_TRAIN_RINGDIR", "OTEL_TRAIN_RINGDIR (did you mean OTEL_TRAIN_RING_DIR?);"),
        ("OTEL_TRAIN_ring_dir", "OTEL_TRAIN_ring_dir (did you mean OTEL_TRAIN_RING_DIR?);"),
        ("OTEL_TRAIN_XYZ", "OTEL_TRAIN_XYZ;"),
    ],
)
def test_unknown_variable_is_named(name: str, hint: str) -> None:
    """A message names the variable, and the nearest one that is read, if there is one near."""
    assert f"nothing reads {hint}" in warning_of_unknown({name: "1", "OTEL_TRAIN_RUN_ID": "a", "OTHER": ""})


def test_known_variables_pass() -> None:
    """What the project reads, and what is not its own, is not told of."""
    assert warning_of_unknown({PREFIX + name: "" for name in (*OWN, *DEPLOYED)} | {"OTEL_SERVICE_NAME": "a"}) == ""


def test_service_links_pass() -> None:
    """What Kubernetes tells a pod of the namespace's Services is not told of, and a mistyped name beside it is."""
    links = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_OTLP", "PORT", "PORT_4317_TCP", "PORT_4317_TCP_ADDR"]
    environ = {f"{PREFIX}BRIDGE_{link}": "10.0.0.7" for link in links}
    assert warning_of_unknown(environ) == ""
    assert "nothing reads OTEL_TRAIN_BRIDGE_TOKN (" in warning_of_unknown(environ | {"OTEL_TRAIN_BRIDGE_TOKN": "a"})


@pytest.mark.parametrize(("rank", "count"), [("0", 1), ("1", 0)])
def test_init_warns_of_mistyped_variable(
    rank: str, count: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A session of rank 0 warns once of a variable that it does not read."""
    for name, value in (("RANK", rank), ("OTEL_TRAIN_SIDECAR", "external"), ("OTEL_TRAIN_RUNID", "mine")):
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING):
        otel_train.init(ring_dir=tmp_path).close()
    assert sum("OTEL_TRAIN_RUNID (did you mean" in record.getMessage() for record in caplog.records) == count


def test_command_warns_of_mistyped_variable(tmp_path: Path) -> None:
    """A command says so in a line on stderr, and does its work."""
    run = run_otel_train("completion", "bash", OTEL_TRAIN_RING_DR=str(tmp_path))
    assert run.returncode == 0
    [line] = run.stderr.splitlines()
    assert "OTEL_TRAIN_RING_DR (did you mean OTEL_TRAIN_RING_DIR?)" in line
