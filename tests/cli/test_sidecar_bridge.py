"""The command `sidecar` as a user gives it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from otel_train.cli import main


@pytest.mark.parametrize(
    ("name", "message"),
    [("my-rnu", "did you mean 'my-run'?"), ("other", "rings are in my-run there"), ("no/where", "neither")],
)
def test_mistyped_directory_is_refused(name: str, message: str, tmp_path: Path) -> None:
    """A sidecar for a mistyped directory makes nothing, and names the job that was probably meant."""
    (tmp_path / "my-run").mkdir()
    (tmp_path / "my-run" / "rank00000-1.ring").touch()
    result = CliRunner().invoke(main, ["sidecar", str(tmp_path / name)])
    assert (result.exit_code, message in result.output) == (2, True), result.output
    assert [path.name for path in tmp_path.iterdir()] == ["my-run"]
