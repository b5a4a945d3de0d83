"""The files of a release, and its wheel, which works without the checkout: built and installed as a user would."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_train.render import shipped_files
from tests.support.environment import clean_environment
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[1]
UV = str(Path(sys.executable).with_name("uv"))
EXTRAS = ("train", "bridge", "render", "inspect")
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
COMPILER = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0])
CHOICE = "from otel_train.native import IMPLEMENTATION; print(IMPLEMENTATION)"
pytestmark = pytest.mark.matrix


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an sdist and a wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([UV, "build", "--quiet", "--out-dir", folder, ROOT], check=True)
    return folder


@pytest.fixture(scope="module")
def install(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that installs the wheel with some extras and returns the folder of its programs."""

    @functools.cache
    def installed(*extras: str) -> Path:
        venv = tmp_path_factory.mktemp("venv")
        [wheel] = dist.glob("*.whl")
        subprocess.run([UV, "venv", "--quiet", "--clear", "--python", sys.executable, venv], check=True)
        options = ["--quiet", "--python", str(venv / "bin/python"), "--constraint", str(ROOT / "constraints.txt")]
        requirement = f"otel-train[{','.join(extras)}] @ {wheel.as_uri()}"
        subprocess.run([UV, "pip", "install", *options, requirement], check=True)
        return venv / "bin"

    return installed


@pytest.fixture
def sources(dist: Path, tmp_path: Path) -> Path:
    """Return a folder with what the sdist holds."""
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "sdist", filter="data")
    [folder] = (tmp_path / "sdist").iterdir()
    return folder


def new_venv(folder: Path, interpreter: str = sys.executable) -> Path:
    """Make an empty environment and return its interpreter."""
    subprocess.run([UV, "venv", "--quiet", "--clear", "--python", interpreter, folder], check=True)
    return folder / "bin/python"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a program away from the checkout."""

    def run_program(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = clean_environment(**environment)
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)

    return run_program


def test_sdist_leaves_tests_out(dist: Path) -> None:
    """Some of them without the others can't pass; what a deployment reads is there."""
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not [name for name in names if name.startswith("tests")]
    assert {"collector/gateway.yaml", "prometheus/prometheus.yml", "docs/stack.md", "examples/own_loop.py"} <= names


def test_wheel_holds_package_only(dist: Path) -> None:
    """The wheel has each file of the package, what `render --out` takes along, the licence, and no other package."""
    [wheel] = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [licence] = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    files = subprocess.run(["git", "ls-files", "otel_train"], cwd=ROOT, capture_output=True, text=True, check=True)
    expected = {name for name in files.stdout.split() if not name.endswith((".c", ".h"))}
    shipped = {name.partition("/share/otel_train/")[2] for name in names} - {""}
    assert shipped >= set(shipped_files())
    core = {"otel_train/native/_core.abi3.so"} if COMPILER else set()
    assert expected | core == {name for name in names if name.startswith("otel_train/")}
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"otel_train"}


def test_metadata_passes_index_checks(dist: Path) -> None:
    """An index takes both files as they are, and the classifiers name each Python from the lowest on."""
    abi3 = [("abi3audit", "--strict", "--assume-minimum-abi3", "3.11")] if COMPILER else []
    for tool, *arguments in (("twine", "check", "--strict"), ("check-wheel-contents",), *abi3):
        files = [path for path in dist.iterdir() if path.suffix == ".whl" or (tool == "twine" and path.suffix == ".gz")]
        command = [
            UV,
            "tool",
            "run",
            "--constraints",
            str(ROOT / "constraints.txt"),
            tool,
            *arguments,
            *map(str, files),
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = [name.rpartition(" ")[2] for name in project["classifiers"] if "Python :: 3." in name]
    assert versions == ["3.11", "3.12", "3.13"]
    assert project["requires-python"] == f">={versions[0]}"


@pytest.mark.parametrize("extras", [(), *((extra,) for extra in EXTRAS), EXTRAS], ids="+".join)
def test_commands_work_with_extras(
    extras: tuple[str, ...], install: Callable[..., Path], run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The import and the help need no extra, and a command whose extras are missing names just these."""
    programs = install(*extras)
    location = run(programs / "python", "-c", "import otel_train; print(otel_train.__file__)").stdout
    assert location.startswith(str(programs.parent))
    help_text = run(programs / "otel-train", "--help")
    assert help_text.returncode == 0
    assert "demo" in help_text.stdout
    for command, needed in (
        (["smoke", "--help"], []),
        (["smoke", "healthy"], ["train", "bridge"]),
        (["bridge", "--check"], ["bridge"]),
        (["render", "--out", "stack"], ["render"]),
        (["dump", "--format", "parquet", "--out", "steps.parquet"], ["inspect"]),
    ):
        missing = [extra for extra in needed if extra not in extras]
        if missing:
            result = run(programs / "otel-train", *command)
            assert result.returncode != 0
            [line] = result.stderr.splitlines()
            assert f"pip install 'otel-train[{','.join(missing)}] @ file://" in line


def test_demo_passes_with_wheel(
    install: Callable[..., Path], run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """With all extras of a user the reference job runs, is judged, and can be shown as a page."""
    program = install(*EXTRAS) / "otel-train"
    demo = run(program, "demo")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    [folder] = (tmp_path / "otel-train-out").iterdir()
    report = run(program, "report", folder, "--out", tmp_path / "page.html")
    assert report.returncode == 0, report.stderr
    assert "<style>" in (tmp_path / "page.html").read_text()


def test_rank_records_with_wheel(
    install: Callable[..., Path], run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """A training process needs the extra of training only; what reads its ring needs none, or the one for parquet."""
    script = "import otel_train\nwith otel_train.init() as telemetry:\n    telemetry.step(1, {'train/loss': 2.5})"
    ring = {"OTEL_TRAIN_RING_DIR": str(tmp_path / "rings"), "OTEL_TRAIN_SIDECAR": "external"}
    rank = run(install("train") / "python", "-c", script, **ring)
    assert rank.returncode == 0, rank.stderr
    records = run(install() / "otel-train", "dump", tmp_path / "rings").stdout.splitlines()
    assert {json.loads(record)["train/loss"] for record in records} == {2.5}
    program = install("inspect") / "otel-train"
    parquet = run(program, "dump", tmp_path / "rings", "--format", "parquet", "--out", tmp_path / "steps.parquet")
    assert parquet.returncode == 0, parquet.stderr
    assert (tmp_path / "steps.parquet").read_bytes().startswith(b"PAR1")


def test_bridge_serves_with_wheel(
    install: Callable[..., Path], run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The bridge's extra is enough for a service that answers its own check and ends when it is told to."""
    program, state, log = install("bridge") / "otel-train", tmp_path / "state", tmp_path / "bridge.log"
    command = [str(program), "bridge", "--listen", "127.0.0.1:0", "--state", str(state)]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as bridge:
        try:
            wait_until((state / "address").exists, 60, "the bridge", log=log)
            check = run(program, "bridge", "--check", "--listen", (state / "address").read_text().strip())
            assert check.returncode == 0, check.stderr
        finally:
            bridge.terminate()
        assert bridge.wait(30) == 0


def test_wheel_writes_monitoring_setup(install: Callable[..., Path], tmp_path: Path) -> None:
    """Rules, dashboards, and the configurations and manifests that the checkout has."""
    program = install("render") / "otel-train"
    subprocess.run([program, "render", "--out", tmp_path], capture_output=True, check=True)
    manifests = subprocess.run(
        ["git", "ls-files", "deploy/kubernetes"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = ("collector/gateway.yaml", "prometheus/prometheus.yml", "prometheus/otel_train.rules.yaml")
    for name in (*names, *manifests.stdout.split()):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.skipif(COMPILER is None, reason="no C compiler on PATH")
@pytest.mark.parametrize("interpreter", PYTHONS)
def test_pythons_share_wheel(
    interpreter: str, dist: Path, run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """One wheel serves each Python from the lowest on: its core is loaded there."""
    path = shutil.which(interpreter)
    if path is None or run(path, "-V").returncode:
        pytest.skip(f"no {interpreter} on this machine")
    python = new_venv(tmp_path / "venv", path)
    [wheel] = dist.glob("*-cp311-abi3-linux_*.whl")
    subprocess.run([UV, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True)
    chosen = run(python, "-c", CHOICE, OTEL_TRAIN_PURE="")
    assert (chosen.stdout, chosen.stderr) == ("native\n", "")


@pytest.mark.parametrize("form", ["folder", "editable", "sdist"])
@pytest.mark.parametrize("compiler", [True, False], ids=["compiler", "bare"])
def test_install_needs_no_compiler(form: str, compiler: bool, dist: Path, sources: Path, tmp_path: Path) -> None:
    """Sources are installed with and without a compiler on PATH; which of the two runs follows from that."""
    if compiler and COMPILER is None:
        pytest.skip("no C compiler on PATH")
    python = new_venv(tmp_path / "venv")
    [sdist] = dist.glob("*.tar.gz")
    copy = shutil.copy(sdist, tmp_path)  # uv keeps what it has built of a path
    what: dict[str, list[str | Path]] = {"folder": [sources], "editable": ["--editable", sources], "sdist": [copy]}
    environment = clean_environment(OTEL_TRAIN_PURE="", **({} if compiler else {"PATH": str(tmp_path)}))
    install: list[str | Path] = [UV, "pip", "install", "--quiet", "--no-deps", "--python", python, *what[form]]
    subprocess.run(install, env=environment, check=True)
    chosen = subprocess.run(
        [python, "-c", CHOICE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert (chosen.stdout, chosen.stderr) == ("native\n" if compiler else "python\n", "")


def test_job_runs_without_compiler(
    sources: Path, run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Installed with nothing on PATH, the reference job runs and is judged well, and doctor says what ran."""
    python = new_venv(tmp_path / "venv")
    options = ["--quiet", "--python", python, "--constraint", ROOT / "constraints.txt"]
    requirement = f"otel-train[train,bridge] @ {sources.as_uri()}"
    install = run(UV, "pip", "install", *options, requirement, PATH=str(tmp_path))
    assert install.returncode == 0, install.stderr
    program, job = python.with_name("otel-train"), tmp_path / "job"
    smoke = run(program, "smoke", "healthy", "--out", job, PATH=str(tmp_path), OTEL_TRAIN_PURE="")
    assert smoke.returncode == 0, smoke.stdout + smoke.stderr
    assert "at each step its twin in Python ran" in run(program, "doctor", job, PATH=str(tmp_path)).stdout.splitlines()


def test_free_threaded_python_builds_nothing(sources: Path, tmp_path: Path) -> None:
    """A free-threaded Python, as it says of itself, gets a wheel without the core."""
    build = (
        "import runpy, sys, sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1; "
        "sys.path.insert(0, '.'); sys.argv[0] = 'setup.py'; runpy.run_path('setup.py')"
    )
    command = [sys.executable, "-c", build, "--quiet", "bdist_wheel", "--dist-dir", str(tmp_path / "wheel")]
    subprocess.run(command, cwd=sources, check=True)
    [wheel] = (tmp_path / "wheel").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
