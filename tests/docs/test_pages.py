"""The pages of docs/ against the code that they describe."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
from pathlib import Path

import pytest

import otel_train
from otel_train import ledger, mixing
from otel_train.bridge.inbox_store import SCHEMA_VERSION
from otel_train.ring import file_format
from otel_train.step.environment import Environment, store_outlives_ranks
from otel_train.variables import DEPLOYED

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TITLED = [
    pytest.param(text, id=f"{page.stem}/{name}")
    for page in sorted(DOCS.glob("how-to/*.md"))
    for name, text in re.findall(r'```python title="(\S+)".*?\n(.*?)```', page.read_text(encoding="utf-8"), re.DOTALL)
]


@pytest.mark.parametrize("text", TITLED)
def test_named_block_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of a how-to that has a file's name is a program that does what it asserts."""
    monkeypatch.setenv("OTEL_TRAIN_RING_DIR", str(tmp_path / "rings"))
    (tmp_path / "program.py").write_text(text)
    runpy.run_path(str(tmp_path / "program.py"), run_name="__main__")


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_blocks_are_python(page: Path) -> None:
    """Every block that says it is Python can be parsed, also those that need a trainer to run."""
    for block in re.findall(r"```python.*?\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        ast.parse(block)


def test_named_files_exist() -> None:
    """A path of the checkout that a page names leads somewhere."""
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    texts = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    paths = re.findall(
        r"`((?:otel_train|tests|collector|prometheus|grafana|benchmarks|examples|fuzz|tools)/[\w/.-]*\w)`", texts
    )
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_quoted_log_lines_exist() -> None:
    """A log line that the page of symptoms quotes is one that the package writes."""
    texts = [
        node.value
        for path in (ROOT / "otel_train").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    lines = [
        line for cell in re.findall(r"^\| ([^|]*) \|", page, re.MULTILINE) for line in re.findall('"([^"`]+)"', cell)
    ]
    assert len(lines) > 15
    forms = {line: ".*".join(re.escape(part.strip()) for part in line.split("…")) for line in lines}
    assert [line for line, form in forms.items() if not any(re.search(form, text) for text in texts)] == []


def test_reference_has_every_name() -> None:
    """Every name that the package, its mixing and its ledger export is on the page of the API."""
    shown = re.findall(r"^::: (\S+)", (DOCS / "reference/api.md").read_text(encoding="utf-8"), re.MULTILINE)
    shown_names = {target.rpartition(".")[2] for target in shown}
    public = {*otel_train.__all__, *mixing.__all__, *ledger.__all__}
    assert {name for name in public if not name.endswith("Error")} - shown_names == set()
    assert {"otel_train.exceptions", "otel_train.testing"} <= set(shown)


def test_options_have_their_defaults() -> None:
    """The table of init's arguments has each of them, in order, with its default."""
    page = (DOCS / "reference/configuration.md").read_text(encoding="utf-8")
    table = page[page.index("## Arguments of `init`") : page.index("## Variables of otel_train")]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| `([^`]+)` \|", table, re.MULTILINE)
    parameters = inspect.signature(otel_train.init).parameters.values()
    assert rows == [(parameter.name, repr(parameter.default)) for parameter in parameters]


def test_variables_are_all_described() -> None:
    """The page of the configuration has each variable that the package reads, and no other of ours."""

    class Asked(dict[str, str]):
        """An empty environment that keeps which variables it was asked for."""

        def __init__(self) -> None:
            super().__init__()
            self.names: set[str] = set()

        def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
            self.names.add(name)
            return default

    asked = Asked()
    Environment.read(asked)
    store_outlives_ranks(asked)
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "otel_train").rglob("*.py"))
    ours = set(re.findall(r"\bOTEL_TRAIN_[A-Z_]*[A-Z]\b", sources))
    named = ours | set(re.findall(r'"((?:OTEL|SLURM|OMPI|TORCHELASTIC)_[A-Z_]*[A-Z])"', sources)) - DEPLOYED
    page = set(re.findall(r"\b[A-Z][A-Z_]+[A-Z]\b", (DOCS / "reference/configuration.md").read_text(encoding="utf-8")))
    assert (asked.names | named) - page == set()
    assert {name for name in page if name.startswith("OTEL_TRAIN_")} == ours


def test_ring_page_has_the_format() -> None:
    """The page of the ring format has the version, the offsets and the formats of the code."""
    page = (DOCS / "reference/ring.md").read_text(encoding="utf-8")
    assert f"Version {file_format.VERSION};" in page
    assert f"magic `{file_format.MAGIC.decode()}`" in page
    for offset, form in (
        (0, file_format.FIXED),
        (file_format.PROGRESS_OFFSET, file_format.PROGRESS),
        (file_format.ENDING_OFFSET, file_format.ENDING),
        (file_format.PHASE_OFFSET, file_format.PHASE),
        (file_format.ERROR_OFFSET, file_format.ERROR),
    ):
        assert re.search(rf"^\| {offset} \|.*`{re.escape(form.format)}`", page, re.MULTILINE)
    empty = file_format.Geometry(values=0, totals=0, records=1, schema_size=0)
    assert f"`{empty.slot_struct.format.removesuffix('0d')}`" in page
    assert f"`{empty.record_struct.format.removesuffix('0d')}`" in page
    assert f"{empty.record_size} + 8 x values bytes" in page.replace("\n", " ").replace("\u00d7", "x")
    assert re.findall(r"^\| (\d), ", page, re.MULTILINE) == [str(int(kind)) for kind in file_format.Kind]


def test_upgrades_name_present_versions() -> None:
    """The page on upgrading has the versions of ring files and inboxes that the code writes."""
    text = (DOCS / "compatibility.md").read_text(encoding="utf-8")
    versions = re.findall(r"^\| (?:a ring file|the bridge's inbox) \| (\d+),", text, re.MULTILINE)
    assert versions == [str(file_format.VERSION), str(SCHEMA_VERSION)]
