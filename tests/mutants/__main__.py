"""Break one line of the source after the other, in copies, and see that the test that guards it fails.

    python -m tests.mutants [--jobs N] [--only TEXT] [--quarter NUMBER]

Run it on a tree whose tests pass: what fails anyway catches everything. Where the native core is built, a test runs
without it, so that a break of its twin in Python is seen; a break of a line in C builds the core anew in the copy.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch  # noqa: F401  # once here, and not anew in each child

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutants.toml")
COPIED = (
    *("otel_train", "tests", "fuzz", "pyproject.toml", "setup.py", "README.md", "docs"),
    *("collector", "deploy", "grafana", "prometheus"),
)
BUILDS = [path.relative_to(ROOT) for path in (ROOT / "otel_train" / "native").glob("*.so")]
"""The native core, where it is built."""
TIMEOUT = 120
"""Seconds that a test may take; one that hangs has caught its mutant."""
TRIES = 3
"""Times that a test may pass before its mutant has survived: one of examples drawn by chance may miss it once."""


@dataclass(frozen=True)
class Mutant:
    """A break of one line."""

    file: str
    line: str
    broken: str
    test: str
    native: bool = False
    """The test runs with the native core, though the line is Python."""

    @property
    def in_c(self) -> bool:
        """Whether the line is one of the native core's own."""
        return self.file.endswith(".c")

    def apply(self, root: Path) -> None:
        """Break the line in a copy.

        Raises:
            ValueError: The line is not there, or not once.
        """
        path = root / self.file
        text = path.read_text()
        if text.count(self.line) != 1:
            raise ValueError(f"{self.file}: {self.line!r} stands there {text.count(self.line)} times, expected once")
        path.write_text(text.replace(self.line, self.broken))

    def __str__(self) -> str:
        return f"{self.file}: {self.line!r} -> {self.broken!r}"


def run(mutant: Mutant, root: Path) -> int:
    """Start the mutant's test on a copy and return the child's pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        os.chdir(root)
        output = os.open(root / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ["PYTHONPATH"] = str(root)
        os.environ["HYPOTHESIS_PROFILE"] = "unshrunk"
        # A file that is broken twice within a second would be taken from the cache of the first time.
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True
        if mutant.in_c:
            build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--force"]
            subprocess.run(build, check=True)
        elif not mutant.native:
            os.environ["OTEL_TRAIN_PURE"] = "1"
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]
        sys.path[0] = str(root)
        arguments = [mutant.test, "-m", "", "-x", "-p", "no:cacheprovider", f"--timeout={TIMEOUT}", f"--rootdir={root}"]
        code = pytest.main([*arguments, f"--basetemp={root / 'tmp'}"])
    finally:
        os._exit(int(code))


@contextmanager
def copies(count: int) -> Iterator[list[Path]]:
    """Make so many copies of the source and the tests, and remove them."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        made = [Path(folder) / str(number) for number in range(count)]
        for root in made:
            for name in COPIED:
                source = ROOT / name
                root.mkdir(exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, root / name)
        yield made


def main() -> int:
    """Run all mutants and say which survived."""
    parser = argparse.ArgumentParser(prog="tests.mutants", description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="only the mutants that have this text in file, line or test")
    parser.add_argument("--quarter", type=int, help="every fourth one, which of them follows from the number")
    arguments = parser.parse_args()
    listed = [Mutant(**entry) for entry in tomllib.loads(LIST.read_text())["mutant"]]
    waiting = [mutant for mutant in listed if arguments.only in f"{mutant} {mutant.test}"]
    if not BUILDS:
        print(f"without the native core {sum(mutant.in_c or mutant.native for mutant in waiting)} breaks are left out")
        waiting = [mutant for mutant in waiting if not mutant.in_c and not mutant.native]
    if arguments.quarter is not None:
        waiting = waiting[arguments.quarter % 4 :: 4]
    wrong: list[str] = []
    begin = time.monotonic()
    with copies(arguments.jobs) as free:
        running: dict[int, tuple[Mutant, Path, int]] = {}
        todo = waiting.copy()
        while todo or running:
            while todo and free:
                mutant, root = todo.pop(0), free.pop()
                try:
                    mutant.apply(root)
                except ValueError as error:
                    wrong.append(str(error))
                    free.append(root)
                    continue
                running[run(mutant, root)] = mutant, root, 1
            if not running:
                continue
            pid, status = os.wait()
            mutant, root, tried = running.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if code == pytest.ExitCode.OK and tried < TRIES:
                running[run(mutant, root)] = mutant, root, tried + 1
                continue
            crashed = mutant.in_c and code < 0  # a signal, which ends the tests
            if code != pytest.ExitCode.TESTS_FAILED and not crashed:
                survived = code == pytest.ExitCode.OK
                what = "survived" if survived else f"pytest ended with {code}"
                output = "" if survived else "\n" + (root / "output.txt").read_text()[-2000:]
                wrong.append(f"{what}: {mutant}\n    {mutant.test}{output}")
            shutil.copy(ROOT / mutant.file, root / mutant.file)
            if mutant.in_c:
                for build in BUILDS:
                    shutil.copy(ROOT / build, root / build)
            free.append(root)
            print(".", end="", flush=True)
    print(f"\n{len(waiting) - len(wrong)} of {len(waiting)} breaks were caught in {time.monotonic() - begin:.0f} s")
    print(*wrong, sep="\n")
    return 1 if wrong or not waiting else 0


if __name__ == "__main__":
    sys.exit(main())
