"""Paths that a user gives to a command."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from otel_train.cli import main


@pytest.mark.parametrize(
    "arguments", [["report", "nowhere", "-o"], ["dump", "nowhere", "--out"], ["top", "nowhere", "--svg"]]
)
@pytest.mark.parametrize("output", ["", "missing/file"])
def test_outputs_are_checked_first(arguments: list[str], output: str, tmp_path: Path) -> None:
    """A file that can't be written is an error before anything is read."""
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / output)])
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert str(tmp_path) in line
    assert "nowhere" not in line


@pytest.mark.parametrize("arguments", [["smoke", "healthy", "--out"], ["demo", "--out"], ["render", "--out"]])
def test_folders_are_checked_first(arguments: list[str], tmp_path: Path) -> None:
    """A folder below a file can't be made."""
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / "file" / "below")])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "is a file; give another folder" in result.stderr


def test_tilde_is_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `~` is the home also where no shell has replaced it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"{tmp_path}/missing" in CliRunner().invoke(main, ["report", "~/missing", "-o-"]).stderr
    assert f"{tmp_path}/missing" in CliRunner().invoke(main, ["dump", "--out=~/missing/x"]).stderr


def test_unknown_home_is_name() -> None:
    """A `~user` without a home is a file's name, as in a shell, and the error is one line."""
    result = CliRunner().invoke(main, ["doctor", "~no-such-user/rings"])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.exception


def test_render_needs_checkout(tmp_path: Path) -> None:
    """Render refuses a folder that is not a checkout, where every file would be drift."""
    result = CliRunner().invoke(main, ["render", "--check", "--root", str(tmp_path)])
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
