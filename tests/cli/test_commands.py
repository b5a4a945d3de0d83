"""All commands: their help, their errors, their completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from otel_train.cli import main
from otel_train.cli.command_group import Command
from tests.support.job_rings import write_job

COMMANDS = sorted(main.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_example(name: str) -> None:
    """The help of a command ends with its examples, each on a line that is not broken."""
    command = main.commands[name]
    assert isinstance(command, Command)
    assert [line for line in command.examples if f"otel-train {name}" in line]
    result = CliRunner().invoke(main, [name, "--help"], terminal_width=60)
    assert result.exit_code == 0
    examples = result.stdout.partition("\nExamples:\n")[2]
    assert examples.splitlines() == [f"  {line}" for line in command.examples]


@pytest.mark.parametrize("name", COMMANDS)
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


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return the folder of a program `otel-train`."""
    script = tmp_path / "bin" / "otel-train"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m otel_train "$@"\n')
    script.chmod(0o700)
    return script.parent


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("otel-train du", {"plain,dump"}),
        ("otel-train dump --for", {"plain,--format"}),
        ("otel-train dump --format p", {"plain,parquet"}),
        ("otel-train dump --metric ledger/fal", {"plain,ledger/false_evictions", "plain,ledger/false_evictions_max"}),
        ("otel-train top .", {"dir,."}),
        ("otel-train smoke he", {"file,he", "plain,healthy"}),
    ],
)
def test_words_are_completed(words: str, expected: set[str], program: Path) -> None:
    """Commands, options, choices, directories and shipped configurations are completed, by click's protocol."""
    environment = {**os.environ, "_OTEL_TRAIN_COMPLETE": "bash_complete", "COMP_WORDS": words}
    environment["COMP_CWORD"] = str(len(words.split()) - 1)
    run = subprocess.run([program / "otel-train"], env=environment, capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) == expected


def test_bash_completes_words(program: Path) -> None:
    """Bash completes a word once it has evaluated the script, as in ~/.bashrc."""
    script = """
        eval "$(otel-train completion bash)"
        COMP_WORDS=(otel-train smoke under) COMP_CWORD=2
        $(complete -p otel-train | sed 's/.*-F \\([^ ]*\\).*/\\1/') otel-train 2>/dev/null
        echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{program}:{os.environ['PATH']}"}
    run = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["undersized_ledger"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_scripts(shell: str) -> None:
    """The script of each shell sets the variable that the command answers to."""
    result = CliRunner().invoke(main, ["completion", shell])
    assert (result.exit_code, "_OTEL_TRAIN_COMPLETE" in result.stdout) == (0, True)


def test_help_loads_nothing_heavy() -> None:
    """The help is there at once, as it loads none of the large libraries."""
    check = "import sys, otel_train.cli\nprint([name for name in sys.argv[1:] if name in sys.modules])"
    heavy = ["torch", "rich", "textual", "pyarrow", "grpc", "opentelemetry", "wandb", "numpy"]
    run = subprocess.run([sys.executable, "-c", check, *heavy], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


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


BLOCKED = """
import sys, importlib.abc
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.parametrize(
    ("call", "extras"),
    [
        ("bridge --state STATE", "bridge"),
        ("bridge --check", "bridge"),
        ("demo --out STATE", "train,bridge"),
        ("smoke healthy --out STATE", "train,bridge"),
        ("render --out STATE", "render"),
        ("dump RINGS --out STATE.parquet", "inspect"),
    ],
)
def test_missing_package_names_extra(call: str, extras: str, tmp_path: Path) -> None:
    """The error about a missing package is one line with the command that installs its extra."""
    (tmp_path / "rings").mkdir()
    write_job(tmp_path / "rings", 1, 3)
    words = call.replace("STATE", str(tmp_path / "out")).replace("RINGS", str(tmp_path / "rings")).split()
    blocked = {"torch", "grpc_health", "wandb", "grafana_foundation_sdk", "pyarrow"}
    script = BLOCKED.format(blocked=blocked) + f"import otel_train.cli\notel_train.cli.main({words!r})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    [line] = run.stderr.splitlines()
    assert (run.returncode, f"[{extras}]'" in line, "pip install" in line) == (2, True, True)


def test_missing_torch_names_extra() -> None:
    """A training process without torch gets the command that installs it."""
    script = BLOCKED.format(blocked={"torch"}) + "import otel_train\notel_train.init()"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "otel_train.init needs torch" in run.stderr.splitlines()[-1]


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
