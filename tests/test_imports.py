"""Which part may import which: one way only, and no side pays for the other's libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import otel_train

PACKAGE = Path(otel_train.__file__).parent
PARTS = (
    "bridge",
    "catalogue",
    "diagnose",
    "ledger",
    "mixing",
    "otlp",
    "read",
    "render",
    "report",
    "ring",
    "sidecar",
    "smoke",
    "step",
    "top",
    "trainer",
)
MAY_IMPORT = {
    "catalogue": set(),
    "mixing": {"catalogue"},
    "ledger": {"catalogue"},
    "ring": {"catalogue"},
    "step": {"catalogue", "mixing", "ledger", "ring"},
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
TRAINING_SIDE = "import otel_train.mixing, otel_train.ledger, otel_train.step, otel_train.ring, otel_train.trainer.loop"
SERVICE_SIDE = (
    "import otel_train.sidecar.__main__, otel_train.bridge.bridge_service, otel_train.smoke, otel_train.render, "
    "otel_train.cli, otel_train.top.screen, otel_train.read.dump_formats"
)


def imported_parts(path: Path) -> set[str]:
    """Return the parts of otel_train that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("otel_train.")} & set(PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_imports_go_one_way(part: str) -> None:
    """A part imports only the parts below it."""
    found = {path.name: imported_parts(path) - {part} for path in (PACKAGE / part).rglob("*.py")}
    assert {name: parts - MAY_IMPORT[part] for name, parts in found.items() if parts - MAY_IMPORT[part]} == {}


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import otel_train", "torch opentelemetry grpc google.protobuf wandb rich click"),
        (TRAINING_SIDE, "opentelemetry grpc google.protobuf wandb rich click"),
        (SERVICE_SIDE, "torch"),
    ],
)
def test_no_side_loads_the_libraries_of_the_other(statement: str, forbidden: str) -> None:
    """Importing one side leaves the other side's libraries unloaded."""
    check = f"{statement}\nimport sys\nprint([name for name in {forbidden.split()} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
