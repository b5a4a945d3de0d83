"""Generated files and their drift."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import otel_train
from otel_train.catalogue import CATALOGUE
from otel_train.cli import main
from otel_train.render import alerts, drifted, generated_files, metrics_page, shipped_files, write_files
from otel_train.trainer import shipped_configs


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "otel_train" / "catalogue").mkdir(parents=True)
    write_files(tmp_path)
    return tmp_path


def test_committed_files_have_not_drifted() -> None:
    """The committed files are those that the catalogue generates."""
    assert drifted(Path(otel_train.__file__).parents[1]) == []


@pytest.mark.parametrize(
    "name", ["docs/metrics.md", "docs/runbooks/OtelTrainRankSilent.md", "grafana/dashboards/ledger.json"]
)
def test_changed_file_is_written_anew(checkout: Path, name: str) -> None:
    """A missing file and a changed one are drift, which writing fixes."""
    (checkout / name).write_text("changed")
    assert drifted(checkout) == [name]
    (checkout / name).unlink()
    assert write_files(checkout) == [name]
    assert drifted(checkout) == []


@pytest.mark.parametrize(
    "name", ["docs/runbooks/OldAlert.md", "grafana/dashboards/old.json", "prometheus/old.rules.yaml"]
)
def test_left_over_file_is_drift(checkout: Path, name: str) -> None:
    """A left-over dashboard, page or rule file is drift and is removed; files written by hand stay."""
    (checkout / "prometheus/prometheus.yml").write_text("by hand")
    (checkout / name).write_text("of old")
    assert drifted(checkout) == [name]
    assert write_files(checkout) == [name]
    assert (checkout / "prometheus/prometheus.yml").exists()
    assert not (checkout / name).exists()


def test_page_lists_every_metric() -> None:
    """The page of metrics has every row of the catalogue."""
    assert [metric.name for metric in CATALOGUE if f"`{metric.name}`" not in metrics_page()] == []


def test_index_links_every_runbook() -> None:
    """The index of runbooks links to the page of every alert."""
    files = generated_files()
    index = files["docs/runbooks/README.md"]
    pages = [f"{alert.name}.md" for alert in alerts()]
    assert [page for page in pages if f"({page})" not in index or f"docs/runbooks/{page}" not in files] == []


def test_collector_folder_is_shipped() -> None:
    """All of the collector's folder goes along: its own parts are what its configurations need to be built."""
    folder = Path(otel_train.__file__).parents[1] / "collector"
    names = {f"collector/{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_file()}
    assert names == {name for name in shipped_files() if name.startswith("collector/")}


def test_job_rules_are_written_elsewhere(tmp_path: Path) -> None:
    """`--out` writes rules and dashboards with the job's ranges and the given address, configurations, and no docs."""
    job = str(shipped_configs()["healthy"])
    command = ["render", "--out", str(tmp_path), "--health", job, "--runbooks", "https://wiki.example"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["collector", "deploy", "grafana", "prometheus"]
    rules = (tmp_path / "prometheus/otel_train.rules.yaml").read_text()
    assert "runbook_url: https://wiki.example/OtelTrainRankSilent.md" in rules
    assert "< 4\n" in rules  # picks of a rank; the catalogue's own range begins at 1
