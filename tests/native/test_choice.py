"""Which of the two runs at each step: the core where a fitting one is built, else its twins."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import otel_train
from otel_train.native import IMPLEMENTATION, VERSION, core
from tests.support.environment import clean_environment

PACKAGE = Path(otel_train.__file__).parent
built = pytest.mark.skipif(core is None, reason="the native core is not built, or not chosen")


def choose(root: Path, **environment: str) -> tuple[str, str]:
    """Return which one a new process chooses, of the package below `root`, and what it logs."""
    program = "from otel_train.native import IMPLEMENTATION; print(IMPLEMENTATION)"
    variables = {"OTEL_TRAIN_PURE": "", "PYTHONDONTWRITEBYTECODE": "1"} | environment
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip(), run.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return the folder of a copy of what decides, with the build where there is one."""
    folder = tmp_path / "otel_train"
    shutil.copytree(PACKAGE / "native", folder / "native", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PACKAGE / "__init__.py", folder)
    return folder / "native"


@built
@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", "python"), (" TRUE ", "python"), ("0", "native"), ("", "native"), ("no", "native")],
)
def test_environment_chooses_twins(value: str, expected: str) -> None:
    """OTEL_TRAIN_PURE is 1 or true; anything else leaves the core."""
    assert choose(PACKAGE.parent, OTEL_TRAIN_PURE=value) == (expected, "")


@built
def test_stale_build_is_refused(copy: Path) -> None:
    """A build of other sources is left alone, and a warning says how to build it anew."""
    module = copy / "__init__.py"
    text = module.read_text()
    assert text.count(f"= {VERSION}\n") == 1
    module.write_text(text.replace(f"= {VERSION}\n", f"= {VERSION + 1}\n"))
    chosen, log = choose(copy.parents[1])
    assert chosen == "python"
    assert "pip install -e ." in log
    assert f"({VERSION}, these are {VERSION + 1})" in log


@pytest.mark.parametrize("build", [None, b"", b"\x7fELF no library"])
def test_unusable_build_leaves_twins(build: bytes | None, copy: Path) -> None:
    """Without a build, or with one that can't be loaded (another system's, say), the twins run without a word."""
    for path in copy.glob("*.so"):
        path.unlink()
    if build is not None:
        (copy / "_core.abi3.so").write_bytes(build)
    assert choose(copy.parents[1]) == ("python", "")


def test_sources_name_same_version() -> None:
    """The sources in C and Python have one version: no fresh build is refused."""
    [number] = re.findall(r"#define CORE_VERSION (\d+)", (PACKAGE / "native" / "module.c").read_text())
    assert int(number) == VERSION
    assert (core is None) == (IMPLEMENTATION == "python")
