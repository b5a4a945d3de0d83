"""`otel-train report` as a user gives it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from otel_train.cli import main
from otel_train.read import load
from otel_train.read.load import Loaded
from tests.support.report_pages import a_history

TIGHT = "[data.modalities]\ncode = ['*.py']\n[health]\n'stream_mixing/staleness_max' = { high = 2.0 }\n"


@pytest.fixture
def _source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any source hold a run of its own name."""
    monkeypatch.setattr(load, "load", lambda source, *, run="": Loaded(a_history(run_id=run or Path(source).name)))


@pytest.mark.usefixtures("_source")
def test_page_is_written(tmp_path: Path) -> None:
    """The page goes to a file, or to standard output for `-`; two runs are in one page."""
    page = tmp_path / "page.html"
    result = CliRunner().invoke(main, ["report", "left", "--compare", "right", "-o", str(page)])
    assert result.exit_code == 0
    assert result.output == f"{page} written; open it in a browser\n"
    assert all(f'<bdi class="name">{name}<wbr/></bdi>' in page.read_text() for name in ("left", "right"))
    assert CliRunner().invoke(main, ["report", "left", "-o", "-"]).output.startswith("<!DOCTYPE html>")


@pytest.mark.usefixtures("_source")
@pytest.mark.parametrize("given", [True, False])
def test_own_ranges_are_used(tmp_path: Path, *, given: bool) -> None:
    """The ranges are those of --config, or of the job.toml that the run's folder holds."""
    config = tmp_path / "job.toml"
    config.write_text(TIGHT)
    arguments = ["elsewhere", "--config", str(config)] if given else [str(tmp_path)]
    page = CliRunner().invoke(main, ["report", *arguments, "-o", "-"]).output
    assert "1 of 15 figures out of range since step 1" in page
    assert "[data.modalities]" in page


def test_wrong_paths_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is missing, and a file that can't be written, are errors of one line."""
    missing = CliRunner().invoke(main, ["report", str(tmp_path / "nothing")])
    monkeypatch.setattr(load, "load", lambda *_, **__: Loaded(a_history()))
    unwritable = CliRunner().invoke(main, ["report", "run", "-o", str(tmp_path / "no" / "page.html")])
    for result in (missing, unwritable):
        assert result.exit_code == 2
        assert result.output.startswith("otel-train: ")
        assert result.output.count("\n") == 1
