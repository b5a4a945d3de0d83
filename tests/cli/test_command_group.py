"""The base of all commands: their help, and their errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from otel_train.cli import main
from otel_train.cli.command_group import Command


@pytest.mark.parametrize("name", sorted(main.commands))
def test_help_shows_example(name: str) -> None:
    """The help of a command ends with its examples, each on a line that is not broken."""
    command = main.commands[name]
    assert isinstance(command, Command)
    assert [line for line in command.examples if f"otel-train {name}" in line]
    result = CliRunner().invoke(main, [name, "--help"], terminal_width=60)
    assert result.exit_code == 0
    examples = result.stdout.partition("\nExamples:\n")[2]
    assert examples.splitlines() == [f"  {line}" for line in command.examples]


@pytest.mark.parametrize("name", sorted(main.commands))
def test_unknown_option_is_refused(name: str) -> None:
    """An unknown option is an error of one line that names the command's help."""
    result = CliRunner().invoke(main, [name, "--bogus"])
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.startswith(f"otel-train: {name}: No such option")
    assert line.endswith(f"see `otel-train {name} --help`")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["smok"], id="mistyped"),
        pytest.param(["xyzzy"], id="far-off"),
        pytest.param(["--bogus"], id="option"),
        pytest.param(["bridge", "--state"], id="missing-value"),
        pytest.param(["smoke"], id="missing-argument"),
        pytest.param(["smoke", "healthy", "--nproc", "many"], id="wrong-number"),
        pytest.param(["completion", "tcsh"], id="wrong-choice"),
        pytest.param(["dump", "/nowhere/at/all"], id="missing-directory"),
        pytest.param(["top"], id="no-terminal"),
        pytest.param(["smoke", "nothing.toml"], id="missing-file"),
        pytest.param(["render", "--check", "--out", "here"], id="exclusive-options"),
        pytest.param(["dump", __file__], id="file-as-directory"),
    ],
)
def test_wrong_call_is_refused(arguments: list[str]) -> None:
    """A wrong call is an error of one line with exit code 2, whether click or the command finds it."""
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.exception
    [line] = result.stderr.splitlines()
    assert line.startswith("otel-train: ")


def test_nearest_command_is_named() -> None:
    """A mistyped command's error names the nearest one."""
    assert "did you mean 'smoke'?" in CliRunner().invoke(main, ["smok"]).stderr


def test_error_is_one_line() -> None:
    """A name in an error can't break the line, nor reach the terminal as a command to it."""
    result = CliRunner().invoke(main, ["dump", "a\nb\x07"])
    assert result.exit_code == 2
    assert result.stderr[:-1].isprintable()


def test_unwritable_file_is_refused(tmp_path: Path) -> None:
    """An error of the operating system is one line with exit code 1, as the call was right."""
    (tmp_path / "prometheus").touch()
    result = CliRunner().invoke(main, ["render", "--out", str(tmp_path)])
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert "see that the path is right" in line


def test_no_command_shows_help() -> None:
    """Without a command the help is printed, and the exit code is 2."""
    result = CliRunner().invoke(main, [])
    assert (result.exit_code, "Commands:" in result.stdout) == (2, True)


def test_help_loads_nothing_heavy() -> None:
    """The help is there at once, as it does not load the large libraries."""
    check = "import sys, otel_train.cli\nprint([name for name in sys.argv[1:] if name in sys.modules])"
    heavy = ["torch", "rich", "textual", "pyarrow", "grpc", "opentelemetry", "wandb", "numpy"]
    run = subprocess.run([sys.executable, "-c", check, *heavy], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
