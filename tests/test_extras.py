"""The error about a missing package names the extra that installs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_train.extras import direct_reference
from tests.support.job_rings import write_job

ROOT = Path(__file__).parents[1]
BLOCKED = """
import sys, importlib.abc
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.parametrize(
    ("call", "extras"),
    [
        ("bridge --state STATE", "bridge"),
        ("bridge --check", "bridge"),
        ("demo --out STATE", "train,bridge"),
        ("smoke healthy --out STATE", "train,bridge"),
        ("render --out STATE", "render"),
        ("dump RINGS --out STATE.parquet", "inspect"),
        ("wandb-workspace", "bridge,render,workspace"),
    ],
)
def test_missing_package_names_extra(call: str, extras: str, tmp_path: Path) -> None:
    """The error about a missing package is one line with the command that installs its extra."""
    (tmp_path / "rings").mkdir()
    write_job(tmp_path / "rings", 1, 3)
    words = call.replace("STATE", str(tmp_path / "out")).replace("RINGS", str(tmp_path / "rings")).split()
    blocked = {"torch", "grpc_health", "wandb", "grafana_foundation_sdk", "pyarrow", "wandb_workspaces"}
    script = BLOCKED.format(blocked=blocked) + f"import otel_train.cli\notel_train.cli.main({words!r})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    [line] = run.stderr.splitlines()
    assert (run.returncode, f"[{extras}]'" in line, "pip install" in line) == (2, True, True)


@pytest.mark.parametrize(
    ("statement", "message", "extra"),
    [
        ("import otel_train; otel_train.init()", "otel_train.init needs torch", "train"),
        ("from otel_train import MixingMeter", "otel_train.MixingMeter needs torch", "train"),
        ("import otel_train.mixing", "otel_train.mixing needs torch", "train"),
        ("import otel_train.ledger.state_ledger", "otel_train.ledger needs torch", "train"),
        ("from otel_train.step import init", "otel_train.step.init needs torch", "train"),
        ("from otel_train.integrations import webdataset", "otel_train.integrations needs torch", "train"),
        ("import otel_train.integrations.transformers", "otel_train.integrations needs torch", "train"),
        ("from otel_train.bridge import Bridge", "otel_train.bridge.Bridge needs grpc_health", "bridge"),
        ("import otel_train.render", "otel_train.render needs yaml", "render"),
    ],
)
def test_import_names_extra(statement: str, message: str, extra: str) -> None:
    """A program that lacks a package gets the command that installs it, whatever of ours it imports."""
    script = BLOCKED.format(blocked={"torch", "grpc_health", "yaml", "grafana_foundation_sdk"}) + statement
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    line = run.stderr.splitlines()[-1]
    assert (message in line, f"[{extra}]'" in line) == (True, True), line


@pytest.mark.parametrize(
    ("origin", "address"),
    [
        ({}, ""),
        ({"url": "file:///tmp/x.whl", "archive_info": {}}, "file:///tmp/x.whl"),
        (
            {"url": "https://a.example/x.git", "vcs_info": {"vcs": "git", "commit_id": "1f2"}},
            "git+https://a.example/x.git@1f2",
        ),
        (
            {"url": "ssh://a.example/x", "vcs_info": {"vcs": "git", "commit_id": "1f2"}, "subdirectory": "packages/y"},
            "git+ssh://a.example/x@1f2#subdirectory=packages/y",
        ),
    ],
)
def test_origin_is_address_for_pip(origin: dict[str, Any], address: str) -> None:
    """What was installed from a repository, at a commit and in a folder, is installed from there again."""
    assert direct_reference(origin) == address


@pytest.mark.parametrize(
    ("section", "package"),
    [
        ("cold", "prometheus_client"),
        ("hot_path --quick", "traceml_ai"),
        ("reduction --quick", "torchmetrics"),
        ("memory", "matplotlib"),
        ("ledger --quick", "torch"),
        ("ledger --quick", "rich"),
        ("", "nv_one_logger"),
    ],
)
def test_benchmarks_name_missing_packages(section: str, package: str) -> None:
    """A benchmark without a package that it needs ends with one line, which names it and how to install it."""
    program = BLOCKED.format(blocked={package}) + "import runpy\nrunpy.run_module('benchmarks', run_name='__main__')"
    call = [sys.executable, "-c", program, *section.split()]
    run = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    [line] = run.stderr.splitlines()
    [named] = re.findall(r"\(([\w, ]+)\)", line)
    assert package in named.split(", ")
    assert (run.returncode, f"-m pip install -e '{ROOT}[all,bench]'" in line) == (2, True)
