"""Imports between the parts: one way only, and a side does not pay for the other's libraries."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import otel_train

PACKAGE = Path(otel_train.__file__).parent
CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
MAY_IMPORT: dict[str, set[str]] = {
    "catalogue": set(),
    "native": set(),
    "mixing": {"catalogue", "native"},
    "integrations": {"mixing", "step"},
    "ledger": {"catalogue", "native"},
    "ring": {"catalogue", "native"},
    "step": {"catalogue", "mixing", "native", "ledger", "ring"},
    "trainer": {"catalogue", "mixing", "ledger", "ring", "step"},
    "otlp": set(),
    "sidecar": {"catalogue", "ring", "otlp"},
    "bridge": {"catalogue", "otlp"},
    "render": {"catalogue"},
    "read": {"catalogue", "ring", "bridge"},
    "diagnose": {"catalogue", "read"},
    "top": {"catalogue", "read", "diagnose"},
    "report": {"catalogue", "read", "diagnose"},
    "smoke": {"catalogue", "bridge", "ring", "read", "diagnose", "trainer"},
}
# Entry points of the package's namespace and command, and the receiver for users' tests.
DOORS = {"__init__.py", "__main__.py", "testing.py"}


def imported_parts(path: Path) -> set[str]:
    """Return the parts of otel_train that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("otel_train.")} & set(MAY_IMPORT)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_go_one_way(part: str) -> None:
    """A part imports only the parts below it."""
    imports = {path.name: imported_parts(path) - {part} for path in (PACKAGE / part).rglob("*.py")}
    assert {name: parts - MAY_IMPORT[part] for name, parts in imports.items() if parts - MAY_IMPORT[part]} == {}


def test_shared_modules_import_few() -> None:
    """A module that several parts share imports none of them, but for the names of OTLP's protocols."""
    imports = {path.name: imported_parts(path) for path in PACKAGE.glob("*.py") if path.name not in DOORS}
    assert {name: parts for name, parts in imports.items() if parts - {"otlp"}} == {}
    assert imports["endpoint.py"] == {"otlp"}


def test_contributing_lists_each_part() -> None:
    """The table of CONTRIBUTING.md has a row for each folder of the package, with what it may import."""
    rows = re.findall(r"^\| `otel_train/(\w+)` \|[^|]*\|([^|]*)\|$", CONTRIBUTING.read_text(), re.MULTILINE)
    table = {folder: set(re.findall(r"`(\w+)`", imports)) for folder, imports in rows}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert table.keys() == folders == {*MAY_IMPORT, "cli"}
    assert {part: table[part] for part in MAY_IMPORT} == MAY_IMPORT


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        ("arguments", "torch opentelemetry grpc google.protobuf wandb rich click"),
        ("mixing ledger step ring trainer.loop", "opentelemetry grpc google.protobuf wandb rich click"),
        ("sidecar.__main__ bridge.bridge_service smoke render cli top.screen read.dump_formats report", "torch"),
    ],
)
def test_sides_load_own_libraries(modules: str, forbidden: str) -> None:
    """Importing one side leaves the other side's libraries unloaded, and the package alone loads neither's."""
    imports = "".join(f"import otel_train.{name}\n" for name in modules.split())
    check = f"{imports}import sys\nprint([name for name in {forbidden.split()} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
