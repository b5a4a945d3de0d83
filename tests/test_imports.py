"""Imports between the parts: one way only, and a side does not pay for the other's libraries."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import version as torch_version
from pathlib import Path
from zipfile import ZipFile

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
    "send": {"catalogue", "ring", "otlp", "sidecar"},
    "bridge": {"catalogue", "otlp"},
    "render": {"catalogue"},
    "read": {"catalogue", "native", "ring", "bridge"},
    "diagnose": {"catalogue", "native", "read", "ring"},
    "probe": {"catalogue", "diagnose", "otlp", "read", "ring", "sidecar"},
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
        ("top.one_frame", "torch textual asyncio"),
    ],
)
def test_sides_load_own_libraries(modules: str, forbidden: str) -> None:
    """Importing one side leaves the other side's libraries unloaded, and the package alone loads neither's."""
    imports = "".join(f"import otel_train.{name}\n" for name in modules.split())
    check = f"{imports}import sys\nprint([name for name in {forbidden.split()} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def run_python(code: str, directory: Path, *arguments: str) -> list[str]:
    """Return the words that a new process prints, which begins in a directory."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True).stdout.split()


LOADED = """
import os, sys
os.environ |= {"OTEL_TRAIN_SIDECAR": "external", "OTEL_TRAIN_RING_DIR": sys.argv[1]}
import torch
before = set(sys.modules)
import otel_train
if sys.argv[2] == "init":
    otel_train.init
elif sys.argv[2] == "disabled":
    os.environ["OTEL_SDK_DISABLED"] = "true"
    with otel_train.init() as telemetry:
        telemetry.step(1, {"train/loss": 1.0})
elif sys.argv[2] == "step":
    telemetry = otel_train.init()
    before = set(sys.modules)
    telemetry.step(1, {"train/loss": 1.0})
else:
    with otel_train.init() as telemetry:
        telemetry.step(1, {"train/loss": 1.0})
print(*sorted(sys.modules.keys() - before))
"""


def ours_of(loaded: list[str]) -> set[str]:
    """Return the package's own modules, without its name."""
    return {name.removeprefix("otel_train.") for name in loaded if name.startswith("otel_train.")}


HELP = """
import contextlib, io, sys
from otel_train.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
print(*sys.modules)
"""


def test_help_loads_commands_only(tmp_path: Path) -> None:
    """The list of commands, and their completion, is there before any library of a command is loaded."""
    loaded = run_python(HELP, tmp_path)
    libraries = "asyncio email grpc http importlib.metadata opentelemetry pyarrow rich sqlite3 textual torch wandb"
    assert {*libraries.split()} & {*loaded} == set()
    assert {name.partition(".")[0] for name in ours_of(loaded)} == {
        "cli", "exceptions", "extras", "import_errors", "number_text", "output", "paths", "printable", "variables",
    }  # fmt: skip


def test_import_loads_names_only(tmp_path: Path) -> None:
    """Having `otel_train.init` costs a DataLoader's worker next to nothing: what is called loads what it needs."""
    loaded = run_python(LOADED, tmp_path, str(tmp_path / "rings"), "init")
    assert ours_of(loaded) == {"exceptions", "import_errors", "lazy_names", "paths", "step", "step.session", "untraced"}


def test_disabled_session_loads_no_recording(tmp_path: Path) -> None:
    """A disabled session does not load what only a session that records needs."""
    ours = ours_of(run_python(LOADED, tmp_path, str(tmp_path / "rings"), "disabled"))
    assert "step.telemetry" in ours
    assert {name for name in ours if name.startswith("ring.")} <= {
        "ring.directory",
        "ring.file_format",
        "ring.ring_size",
        "ring.writer_process",
    }
    recording = {
        "aggregate",
        "cluster_values",
        "first_step",
        "flight",
        "membership",
        "packing",
        "recorder",
        "reduction",
    }
    assert ours & {f"step.{name}" for name in recording} == set()
    assert ours & {"ledger", "mixing", "sidecar"} == set()


def test_lone_ranks_read_no_ring(tmp_path: Path) -> None:
    """A rank that is alone loads no reader of rings, nothing for jobs of several kinds, and no library."""
    loaded = run_python(LOADED, tmp_path, str(tmp_path / "rings"), "all")
    assert {"otel_train.ring.writer", "otel_train.step.recording"} <= {*loaded}
    unneeded = {"otel_train.ring.reader", "otel_train.step.aggregate", "otel_train.sidecar", "otel_train.mixing"}
    heavy = {"asyncio", "email", "encodings.idna", "importlib.metadata"}
    if int(torch_version("torch").split(".")[1]) >= 15:  # earlier ones load these with the group
        heavy |= {"secrets", "torch.distributed.tensor"}
    assert {*loaded} & (unneeded | heavy) == set()


def test_first_step_loads_nothing(tmp_path: Path) -> None:
    """What a session needs is loaded when it begins, not in the training loop."""
    assert run_python(LOADED, tmp_path, str(tmp_path / "rings"), "step") == []


MOVED = """
import os, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path[:0] = [sys.argv[2]]
import otel_train
os.chdir("/")
with otel_train.init(ring_dir=sys.argv[1]) as telemetry:
    telemetry.step(1, {"train/loss": 1.0})
print(otel_train.__file__, telemetry.latest[1]["train/loss"])
"""


@pytest.mark.parametrize("root", ["link", "package.zip"])
def test_directory_may_change_after_import(root: str, tmp_path: Path) -> None:
    """What is loaded after the import is there though the search path was relative and the job has moved since."""
    (tmp_path / "link").symlink_to(PACKAGE.parent)
    with ZipFile(tmp_path / "package.zip", "w") as archive:
        for path in PACKAGE.rglob("*.py"):
            archive.write(path, path.relative_to(PACKAGE.parent))
    file, loss = run_python(MOVED, tmp_path, str(tmp_path / "rings"), root)
    assert (root in file, loss) == (True, "1.0")
