"""The form of the package's code: names of files."""

from __future__ import annotations

from pathlib import Path

import otel_train
from tools.figures import read_modules, same_names

PACKAGE = Path(otel_train.__file__).parent
MODULES = read_modules(PACKAGE)


def test_file_names_are_unique() -> None:
    """No two modules share a file's name: with one word for two things a reader opens the wrong one."""
    assert same_names(MODULES) == {}
