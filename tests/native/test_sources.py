"""The C sources, and what their build takes and leaves: no memory and no state of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from otel_train import native

FOLDER = Path(native.__file__).parent
SOURCES = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.[ch]"))}
TABLES = re.compile(r"(\b|_)(slots|methods|functions|members|getset|attributes|spec|definition|names)$")
"""Names of what CPython's interface takes as tables that are not const, and does not write to after the import."""
STATE = {"watch"}
"""State that the process has once: what a signal's handler, which is given nothing, must know."""


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\])*\"", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("name", SOURCES)
def test_core_takes_no_memory(name: str) -> None:
    """Python owns all memory: nothing is allocated but objects, by their type's own slot."""
    taken = r"\b(malloc|calloc|realloc|alloca|strdup|PyMem_\w+|PyObject_(?:Malloc|Calloc|Realloc))\s*\("
    assert re.findall(taken, without_comments(SOURCES[name])) == []


def test_each_file_is_built() -> None:
    """Each file adds its part to the module, and `fill` calls all of them."""
    added = re.compile(r"^int (add_\w+)\(PyObject \*module(?:, Types \*types)?\);?$", re.MULTILINE)
    adding = {name for text in SOURCES.values() for name in added.findall(text)}
    [body] = re.findall(r"^static int fill\(.*?^}", SOURCES["module.c"], re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"\b(add_\w+)\(", body)) == adding


def symbols(build: Path) -> list[tuple[str, str]]:
    """Return kind and name of each symbol of a build."""
    tool = shutil.which("nm")
    if tool is None:
        pytest.skip("no nm on PATH")
    output = subprocess.run([tool, "-a", build], capture_output=True, text=True, check=True).stdout
    return [(kind, name) for line in output.splitlines() for kind, name in [line.split()[-2:]]]


def test_build_has_no_state() -> None:
    """Interpreters and threads of a process share only what never changes, and its handler of signals."""
    builds = list(FOLDER.glob("*.so"))
    if not builds:
        pytest.skip("the native core is not built")
    own = [(kind, name) for kind, name in symbols(builds[0]) if not name.startswith(("_", ".", "completed"))]
    assert [name for kind, name in own if kind in "bBcC"] == []
    writable = {name for kind, name in own if kind in "dD" and not TABLES.search(name.partition(".")[0])}
    assert writable == STATE
    # Only the function by which Python makes the module can be seen from outside.
    assert [name for kind, name in symbols(builds[0]) if kind == "T" and not name.startswith(("_init", "_fini"))] == [
        "PyInit__core"
    ]
