"""
Run tests in other environments: the oldest packages that pyproject.toml allows, other Pythons, other people's loaders,
without the native core.

    python -m tools.environments pure
    python -m tools.environments lowest
    python -m tools.environments pythons
    python -m tools.environments integrations
    python -m tools.environments pins            # after a change of a file of loaders: their packages, pinned anew

Each environment is a folder `.venv-NAME` in the checkout. An interpreter counts if PATH has it as `python3.N`. Those of
other loaders have the packages of `tests/integrations/requirements/NAME.txt` before this environment's own, so that
torch is installed once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = str(Path(sys.executable).with_name("uv"))
EXTRAS = ("train", "bridge", "render", "inspect", "workspace")
TEST_TOOLS = ("hypothesis", "pytest", "pytest-timeout", "trustme")
# Each package that we depend on is used by one of these. What starts whole jobs or services by the dozen runs with the
# newest packages only: it tests processes, not libraries.
QUICK_TESTS = (
    "tests/test_imports.py",
    "tests/catalogue",
    "tests/cli",
    "tests/otlp",
    "tests/ring",
    "tests/render",
    "tests/ledger",
    "tests/native",
    "tests/read/test_dump.py",
    "tests/bridge/test_decode.py",
    "tests/bridge/test_otlp_http.py",
    "tests/bridge/test_otlp_json.py",
    "tests/bridge/test_wandb_rows.py",
    "tests/bridge/test_server.py",
    "tests/sidecar/test_points.py",
    "tests/sidecar/test_http.py",
    "tests/step/test_packing.py",
    "tests/step/test_recorder.py",
    "tests/step/test_environment.py",
    "tests/step/test_telemetry.py",
    "tests/step/test_values.py",
    "tests/top",
)
# What the native core does, by its twins; of the tests of sessions those that compute, not those that start processes.
TWIN_TESTS = (
    "tests/native",
    "tests/mixing",
    "tests/ring",
    "tests/ledger",
    "tests/step/test_alignment.py",
    "tests/step/test_key_registry.py",
    "tests/step/test_logged_values.py",
    "tests/step/test_modes.py",
    "tests/step/test_packing.py",
    "tests/step/test_recorder.py",
    "tests/step/test_reduction_laws.py",
    "tests/step/test_refusals.py",
    "tests/step/test_scalar_recorder.py",
    "tests/step/test_source_protocols.py",
    "tests/step/test_source_scalars.py",
    "tests/step/test_step_numbers.py",
    "tests/step/test_telemetry.py",
    "tests/step/test_user_metrics.py",
    "tests/step/test_values.py",
    "tests/cli/test_doctor.py",
)
TESTS = ROOT / "tests" / "integrations"
REQUIREMENTS = TESTS / "requirements"
# A loader runs with the torch of this environment.
SHARED = ("torch",)


def run(*command: str | Path) -> None:
    """Run a command in the checkout; a failure ends this program too."""
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


def create_environment(name: str, interpreter: str) -> Path:
    """Create an empty environment and return its interpreter."""
    folder = ROOT / f".venv-{name}"
    run(UV, "venv", "--quiet", "--clear", "--python", interpreter, folder)
    return folder / "bin" / "python"


def install(python: Path, *requirements: str, constraints: Path | None = ROOT / "constraints.txt") -> None:
    """Install requirements, with the versions of a constraints file."""
    options = ["--constraint", str(constraints)] if constraints else []
    run(UV, "pip", "install", "--quiet", "--python", python, *options, *requirements)


def check_twins() -> None:
    """Run the tests of what the native core does without it, on two ranks too."""
    os.environ["OTEL_TRAIN_PURE"] = "1"
    run(sys.executable, "-m", "pytest", "--numprocesses", "2", "--dist", "loadfile", *TWIN_TESTS)


def check_lowest_packages() -> None:
    """Run the quick tests and the reference job with the oldest version of each package that pyproject.toml names."""
    python = create_environment("lowest", sys.executable)
    pins = python.parents[1] / "lowest.txt"
    extras = [option for extra in EXTRAS for option in ("--extra", extra)]
    # Without wheels of its own an old release would be built with whatever build tools are new today.
    options = ["--quiet", "--resolution", "lowest-direct", "--only-binary", ":all:", "--output-file", str(pins)]
    run(UV, "pip", "compile", "--python", python, *options, *extras, "pyproject.toml")
    install(python, "--requirements", str(pins), constraints=None)
    install(python, "--no-deps", "--editable", ".")
    newest = (ROOT / "constraints.txt").read_text().splitlines()
    tools = [line for line in newest if line.partition("==")[0] in TEST_TOOLS]
    install(python, *tools, constraints=pins)  # they move none of the packages that are tested
    run_quick_tests(python)
    run(python.with_name("otel-train"), "smoke", "healthy", "--out", python.parents[1] / "job")


def check_other_pythons() -> None:
    """Run the quick tests on each Python that pyproject.toml names, PATH has, and this environment is not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line]
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in versions:
        interpreter = shutil.which(f"python{version}")
        if version == own:
            print(f"Python {version}: `make test` runs on it")
        elif interpreter is None or subprocess.run([interpreter, "-V"], capture_output=True, check=False).returncode:
            print(f"Python {version}: not on this machine")
        else:
            print(f"Python {version}: {interpreter}", flush=True)
            python = create_environment(version, interpreter)
            os.environ["CC"] = "false"  # the core is built once: this Python loads the build of the other one
            install(python, "--editable", f".[{','.join(EXTRAS)}]", *TEST_TOOLS)
            run_quick_tests(python)


def check_integrations() -> None:
    """Run the tests of other loaders, in an environment for each file of requirements."""
    for requirements in sorted(REQUIREMENTS.glob("*.txt")):
        layer_environment(requirements)
    # A file's tests share a job, most of which is waiting.
    workers = ("--numprocesses", "3", "--dist", "loadfile", "--no-loadscope-reorder")
    run(sys.executable, "-m", "pytest", "-m", "integrations", *workers, TESTS)


def layer_environment(requirements: Path) -> None:
    """Create an environment of pinned packages over this one, unless it is there."""
    folder = ROOT / f".venv-{requirements.stem}"
    stamp = folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return
    python = create_environment(requirements.stem, sys.executable)
    install(python, "--no-deps", "--requirements", str(requirements), constraints=None)
    own, shared = site_packages(python), site_packages(sys.executable)
    # The folders of a .pth file come after its own: a package of the environment hides the shared one.
    (own / "shared.pth").write_text(f"{shared}\n")
    stamp.write_text(requirements.read_text())


def site_packages(python: str | Path) -> Path:
    """Return the folder of an interpreter's packages."""
    program = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.check_output([python, "-c", program], text=True).strip())


def pin_integrations() -> None:
    """Pin the loaders of each `NAME.in`, with all that they need, in `NAME.txt`."""
    for loaders in sorted(REQUIREMENTS.glob("*.in")):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as shared:
            shared.write("\n".join(SHARED))
            shared.flush()
            options = ["--quiet", "--upgrade", "--no-header", "--no-annotate", "--excludes", shared.name]
            run(UV, "pip", "compile", *options, loaders, "--output-file", loaders.with_suffix(".txt"))


def run_quick_tests(python: Path) -> None:
    """Run the quick tests with an environment's interpreter."""
    run(python, "-m", "pytest", "-p", "no:cacheprovider", "--timeout", "120", *QUICK_TESTS)


TASKS = {
    "pure": check_twins,
    "lowest": check_lowest_packages,
    "pythons": check_other_pythons,
    "integrations": check_integrations,
    "pins": pin_integrations,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    TASKS[parser.parse_args().task]()
