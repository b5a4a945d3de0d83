"""
Run the tests of the native core with a build that ends the process at each access outside of a block of memory, and at
each step of arithmetic that C leaves undefined.

    python -m tools.sanitize [PYTEST_ARGUMENT …]

It is built in a copy of the checkout by gcc, whose sanitizers are loaded before Python; Python's own allocator, which
would hide where a block ends, is left out. torch and Python are not instrumented: what they leak is not looked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("otel_train", "tests", "fuzz", "tools", "pyproject.toml", "setup.py", "README.md", "LICENSE", "docs")
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -Werror -Wall -Wextra"
TESTS = (
    "tests/native",
    "tests/ledger",
    "tests/mixing/test_batch.py",
    "tests/mixing/test_meter.py",
    "tests/mixing/test_tally.py",
    "tests/ring/test_late_keys.py",
    "tests/ring/test_ring.py",
    "tests/step/test_packing.py",
    "tests/step/test_packing_twins.py",
    "tests/step/test_recorder.py",
    "tests/step/test_reduction_laws.py",
    "tests/step/test_scalar_recorder.py",
    "tests/step/test_step_numbers.py",
    "tests/step/test_values.py",
)
REPORT = 4000
"""Characters of a sanitizer's report that are printed."""
UNPROTECTED = "import ctypes; ctypes.memmove(ctypes.create_string_buffer(8), bytes(64), 64)"
"""A write outside of a block, which must end the process: else nothing is shown."""


def main() -> int:
    """Build the core with sanitizers, and run the tests or what is named."""
    compiler = shutil.which("gcc")
    if compiler is None:
        print("gcc is not there: its sanitizers are needed")
        return 2
    with tempfile.TemporaryDirectory(prefix="sanitize-") as folder:
        root = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_file():
                shutil.copy(ROOT / name, root)
            else:
                shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(build, cwd=root, env={**os.environ, "CC": compiler, "CFLAGS": FLAGS}, check=True)
        [core] = root.glob("otel_train/native/*.so")  # setup.py goes on without one that does not compile
        assert b"__asan_report" in core.read_bytes()
        environment = _environment(compiler, root)
        probe = [sys.executable, "-c", UNPROTECTED]
        if subprocess.run(probe, env=environment, capture_output=True, check=False).returncode == 0:
            print("the sanitizers are not loaded")
            return 2
        for report in root.glob("report.*"):
            report.unlink()
        tests = sys.argv[1:] or ["--numprocesses", "2", "--dist", "loadfile", *TESTS]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
        code = subprocess.run(command, cwd=root, env=environment, check=False).returncode
        for report in sorted(root.glob("report.*")):
            print(report.read_text(errors="replace")[:REPORT])
        return code


def _environment(compiler: str, root: Path) -> dict[str, str]:
    libraries = [
        subprocess.check_output([compiler, f"-print-file-name=lib{name}.so"], text=True).strip()
        for name in ("asan", "ubsan")
    ]
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": f"detect_leaks=0:allocator_may_return_null=1:log_path={root}/report",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={root}/report",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(root),
        "OTEL_TRAIN_PURE": "",
    }


if __name__ == "__main__":
    sys.exit(main())
