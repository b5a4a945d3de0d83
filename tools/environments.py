"""
Run the quick tests in other environments: with the oldest packages that pyproject.toml allows, and on other Pythons.

    python -m tools.environments lowest
    python -m tools.environments pythons

Each environment is a folder `.venv-NAME` in the checkout. An interpreter counts if PATH has it as `python3.N`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = str(Path(sys.executable).with_name("uv"))
EXTRAS = ("train", "bridge", "render", "inspect")
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
    "tests/read/test_dump.py",
    "tests/bridge/test_decode.py",
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
            install(python, "--editable", f".[{','.join(EXTRAS)}]", *TEST_TOOLS)
            run_quick_tests(python)


def run_quick_tests(python: Path) -> None:
    """Run the quick tests with an environment's interpreter."""
    run(python, "-m", "pytest", "-p", "no:cacheprovider", "--timeout", "120", *QUICK_TESTS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", choices=("lowest", "pythons"))
    if parser.parse_args().environments == "lowest":
        check_lowest_packages()
    else:
        check_other_pythons()
