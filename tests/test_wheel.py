"""What a release holds, and what it says where packages are missing: built and installed as a user would."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV = str(Path(sys.executable).with_name("uv"))
pytestmark = pytest.mark.matrix


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an sdist and a wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([UV, "build", "--quiet", "--out-dir", folder, ROOT], check=True)
    return folder


@pytest.fixture(scope="module")
def program(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the command of an environment that has the wheel with what `render` needs."""
    venv = tmp_path_factory.mktemp("venv")
    [wheel] = built.glob("*.whl")
    subprocess.run([UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)], check=True)
    options = ["--quiet", "--python", str(venv / "bin/python"), "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([UV, "pip", "install", *options, f"otel-train[render] @ {wheel.as_uri()}"], check=True)
    return venv / "bin/otel-train"


def test_the_sdist_has_no_tests(built: Path) -> None:
    """Some of them without the others can't pass; what a deployment reads is there."""
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not [name for name in names if name.startswith("tests")]
    assert {"collector/gateway.yaml", "prometheus/prometheus.yml", "docs/stack.md"} <= names


def test_the_wheel_writes_a_monitoring_setup(program: Path, tmp_path: Path) -> None:
    """Rules, dashboards, and the configurations that the checkout has."""
    subprocess.run([program, "render", "--out", tmp_path], capture_output=True, check=True)
    for name in ("collector/gateway.yaml", "prometheus/prometheus.yml", "prometheus/otel_train.rules.yaml"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()


def test_the_printed_install_command_is_of_this_wheel(program: Path) -> None:
    """It adds the extra to what is installed, not to another release."""
    run = subprocess.run([program, "bridge", "--check"], capture_output=True, text=True, check=False)
    [line] = run.stderr.splitlines()
    assert "pip install 'otel-train[bridge] @ file://" in line
