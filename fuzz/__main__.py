"""Fuzz the readers of bytes from outside and the core, each for a while, and keep an input that makes one fail.

    python -m fuzz [TARGET …] [--seconds N]

Such an input is printed and kept in fuzz/corpus/TARGET, where the tests read it from then on. The targets of the native
core make calls of it; `make sanitize` makes random ones of a build that shows each bad access.
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

from fuzz import CORPUS, OF_CORE, TARGETS

WORDS = Path(__file__).with_name("words.dict")
RSS_MIB, RSS_MIB_OF_CORE = 512, 1024
"""Bounds for the whole process, of which the readers' libraries take up to 100, and torch 450."""
INPUT_SECONDS = 20
"""An input that takes longer is a failure: the machine may be busy, but not so busy."""
INPUT_BYTES = 65_536
_STATISTIC = re.compile(r"^stat::(\w+): +(\d+)$", re.MULTILINE)


def fuzz(target: str, seconds: int, scratch: Path) -> bool:
    """Fuzz one target in a process of its own, print its figures, and tell whether no reader failed."""
    corpus, new = CORPUS / target, scratch / target
    new.mkdir()
    command = [
        *(sys.executable, "-m", "fuzz.child", target),
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={RSS_MIB_OF_CORE if target in OF_CORE else RSS_MIB}",
        f"-timeout={INPUT_SECONDS}",
        f"-max_len={INPUT_BYTES}",
        f"-artifact_prefix={corpus}/",
        f"-dict={WORDS}",
        "-print_final_stats=1",
        *(str(new), str(corpus)),  # what reaches new code is written to the first; the corpus stays as it is
    ]
    log = scratch / f"{target}.log"
    with log.open("wb") as output:
        code = subprocess.run(
            command, stdout=output, stderr=output, env={**os.environ, "TMPDIR": str(scratch)}, check=False
        ).returncode
    text = log.read_text(errors="replace")
    figures = dict(_STATISTIC.findall(text))
    print(
        f"{target}: {figures.get('number_of_executed_units', 0)} inputs"
        f" ({figures.get('average_exec_per_sec', 0)} a second), {len(list(new.iterdir()))} reached new code,"
        f" peak {figures.get('peak_rss_mb', '?')} MiB: {'a failure' if code else 'no failure'}",
        flush=True,
    )
    if code:
        print(text[-6000:])
    return code == 0


def main() -> int:
    """Fuzz the targets that are named, or all."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all without one")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if find_spec("atheris") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        parser.error(
            f"atheris is not installed for Python {version}: it has wheels for 3.11 to 3.13 on x86-64 Linux only; "
            "`make setup PYTHON=python3.11` there. Anywhere `pytest tests/test_fuzz_corpus.py` runs the corpus"
        )
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=base) as scratch:
        passed = [fuzz(target, arguments.seconds, Path(scratch)) for target in arguments.targets or TARGETS]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
