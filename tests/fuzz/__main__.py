"""Fuzz the readers of what comes from outside, each for a while, and keep what makes one fail in the corpus.

    python -m tests.fuzz [TARGET …] [--seconds N]

A find is printed and kept in tests/fuzz/corpus/TARGET, where the tests read it from then on.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz import CORPUS, TARGETS

WORDS = Path(__file__).with_name("words.dict")
RSS_MIB = 512
"""Of the whole process, of which the readers' libraries take up to 100."""
INPUT_SECONDS = 20
"""Longer for one input is a find: the machine may be busy, but not so busy."""
INPUT_BYTES = 16_384
_STATISTIC = re.compile(r"^stat::(\w+): +(\d+)$", re.MULTILINE)


def fuzz(target: str, seconds: int, scratch: Path) -> bool:
    """Fuzz one target in a process of its own, print what came of it, and tell whether nothing was found."""
    kept, found = CORPUS / target, scratch / target
    found.mkdir()
    command = [
        *(sys.executable, "-m", "tests.fuzz.child", target),
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={RSS_MIB}",
        f"-timeout={INPUT_SECONDS}",
        f"-max_len={INPUT_BYTES}",
        f"-artifact_prefix={kept}/",
        f"-dict={WORDS}",
        "-print_final_stats=1",
        *(str(found), str(kept)),  # what reaches new places is written to the first; the corpus stays as it is
    ]
    log = scratch / f"{target}.log"
    with log.open("wb") as output:
        code = subprocess.run(
            command, stdout=output, stderr=output, env={**os.environ, "TMPDIR": str(scratch)}, check=False
        ).returncode
    said = log.read_text(errors="replace")
    figures = dict(_STATISTIC.findall(said))
    print(
        f"{target}: {figures.get('number_of_executed_units', 0)} inputs"
        f" ({figures.get('average_exec_per_sec', 0)} a second), {len(list(found.iterdir()))} reached new places,"
        f" peak {figures.get('peak_rss_mb', '?')} MiB: {'a find' if code else 'nothing found'}",
        flush=True,
    )
    if code:
        print(said[-6000:])
    return code == 0


def main() -> int:
    """Fuzz the targets that are named, or all."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all without one")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if find_spec("atheris") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        parser.error(
            f"atheris is not installed for Python {version}: it has wheels for 3.11 to 3.13 on x86-64 Linux only; "
            "`make setup PYTHON=python3.11` there. The corpus itself is run by `pytest tests/fuzz` anywhere"
        )
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=base) as scratch:
        passed = [fuzz(target, arguments.seconds, Path(scratch)) for target in arguments.targets or TARGETS]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
