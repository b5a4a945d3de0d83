"""Generated files and their drift."""

from __future__ import annotations

from pathlib import Path

import otel_train
from otel_train.catalogue import CATALOGUE
from otel_train.render import drifted, metrics_page, write_files


def test_what_is_committed_is_what_the_catalogue_gives() -> None:
    """No generated file has drifted from the catalogue."""
    assert drifted(Path(otel_train.__file__).parents[1]) == []


def test_a_changed_file_is_found_and_written_anew(tmp_path: Path) -> None:
    """Drift is seen in a missing file and in a changed one."""
    (tmp_path / "otel_train" / "catalogue").mkdir(parents=True)
    assert write_files(tmp_path) == ["docs/metrics.md"]
    (tmp_path / "docs/metrics.md").write_text("changed")
    assert drifted(tmp_path) == ["docs/metrics.md"]


def test_every_metric_is_on_the_page() -> None:
    """The page leaves no row out."""
    assert [metric.name for metric in CATALOGUE if f"`{metric.name}`" not in metrics_page()] == []
