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
WRONG = {
    "nothing": ["smok"],
    "a far-off command": ["xyzzy"],
    "no command's option": ["--bogus"],
    "a missing value": ["bridge", "--state"],
    "a missing argument": ["smoke"],
    "a wrong number": ["smoke", "healthy", "--nproc", "many"],
    "a wrong choice": ["completion", "tcsh"],
    "a missing directory": ["dump", "/nowhere/at/all"],
    "no terminal": ["top"],
    "a file that is not there": ["smoke", "nothing.toml"],
    "options that exclude each other": ["render", "--check", "--out", "here"],
    "a directory that is a file": ["dump", __file__],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name: str) -> None:
    """At least one, as one would type it, on a line that is not broken."""
    command = main.commands[name]
    assert isinstance(command, Command)
    assert [line for line in command.examples if f"otel-train {name}" in line]
    result = CliRunner().invoke(main, [name, "--help"], terminal_width=60)
    assert result.exit_code == 0
    behind = result.stdout.partition("\nExamples:\n")[2]
    assert behind.splitlines() == [f"  {line}" for line in command.examples]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_one_line(name: str) -> None:
    """That names the command whose help has the right ones."""
    result = CliRunner().invoke(main, [name, "--bogus"])
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.startswith(f"otel-train: {name}: No such option")
    assert line.endswith(f"see `otel-train {name} --help`")


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_a_wrong_call_is_one_line_and_exit_code_2(arguments: list[str]) -> None:
    """Whoever finds it, click or the command."""
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.exception
    [line] = result.stderr.splitlines()
    assert line.startswith("otel-train: ")


def test_the_nearest_command_is_named() -> None:
    """A slip of the finger is mended at a glance."""
    assert "did you mean 'smoke'?" in CliRunner().invoke(main, ["smok"]).stderr


def test_an_error_stays_on_its_line() -> None:
    """Whatever was given: a name can't break the line, nor reach the terminal as a command to it."""
    result = CliRunner().invoke(main, ["dump", "a\nb\x07"])
    assert result.exit_code == 2
    assert result.stderr[:-1].isprintable()


def test_a_file_that_cannot_be_written_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    """What the operating system refuses is no wrong call."""
    (tmp_path / "prometheus").touch()
    result = CliRunner().invoke(main, ["render", "--out", str(tmp_path)])
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert "see that the path is right" in line


def test_without_a_command_the_help_is_shown() -> None:
    """And the exit code says that nothing was done."""
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
    ("words", "wanted"),
    [
        ("otel-train du", {"plain,dump"}),
        ("otel-train dump --for", {"plain,--format"}),
        ("otel-train dump --format p", {"plain,parquet"}),
        ("otel-train dump --metric ledger/fal", {"plain,ledger/false_evictions", "plain,ledger/false_evictions_max"}),
        ("otel-train top .", {"dir,."}),
        ("otel-train smoke he", {"file,he", "plain,healthy"}),
    ],
)
def test_words_are_completed(words: str, wanted: set[str], program: Path) -> None:
    """Commands, options, choices, directories and shipped configurations, by click's protocol."""
    environment = {**os.environ, "_OTEL_TRAIN_COMPLETE": "bash_complete", "COMP_WORDS": words}
    environment["COMP_CWORD"] = str(len(words.split()) - 1)
    run = subprocess.run([program / "otel-train"], env=environment, capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) == wanted


def test_bash_completes_after_the_script_was_read(program: Path) -> None:
    """As `eval "$(otel-train completion bash)"` in ~/.bashrc has it."""
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
def test_other_shells_have_a_script(shell: str) -> None:
    """It asks by the variable that the command answers to."""
    result = CliRunner().invoke(main, ["completion", shell])
    assert (result.exit_code, "_OTEL_TRAIN_COMPLETE" in result.stdout) == (0, True)


def test_help_loads_nothing_heavy() -> None:
    """It is there at once."""
    check = "import sys, otel_train.cli\nprint([name for name in sys.argv[1:] if name in sys.modules])"
    heavy = ["torch", "rich", "textual", "pyarrow", "grpc", "opentelemetry", "wandb", "numpy"]
    run = subprocess.run([sys.executable, "-c", check, *heavy], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


OUTPUTS = [
    ["report", "nowhere", "-o"],
    ["dump", "nowhere", "--out"],
    ["top", "nowhere", "--svg"],
]


@pytest.mark.parametrize("arguments", OUTPUTS, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("output", ["", "missing/file"])
def test_outputs_are_checked_first(arguments: list[str], output: str, tmp_path: Path) -> None:
    """A file that can't be written is told before anything is read."""
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


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no shell has replaced it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"{tmp_path}/missing" in CliRunner().invoke(main, ["report", "~/missing", "-o-"]).stderr
    assert f"{tmp_path}/missing" in CliRunner().invoke(main, ["dump", "--out=~/missing/x"]).stderr


def test_a_home_that_is_none_is_a_name() -> None:
    """As in a shell: one line says that there is no such file."""
    result = CliRunner().invoke(main, ["doctor", "~no-such-user/rings"])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.exception


def test_render_wants_a_checkout(tmp_path: Path) -> None:
    """Elsewhere every file would be drift."""
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
def test_a_missing_package_names_its_extra(call: str, extras: str, tmp_path: Path) -> None:
    """With the command that installs it, on one line."""
    (tmp_path / "rings").mkdir()
    write_job(tmp_path / "rings", 1, 3)
    words = call.replace("STATE", str(tmp_path / "out")).replace("RINGS", str(tmp_path / "rings")).split()
    blocked = {"torch", "grpc_health", "wandb", "grafana_foundation_sdk", "pyarrow"}
    script = BLOCKED.format(blocked=blocked) + f"import otel_train.cli\notel_train.cli.main({words!r})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    [line] = run.stderr.splitlines()
    assert (run.returncode, f"[{extras}]'" in line, "pip install" in line) == (2, True, True)


def test_init_without_torch_names_its_extra() -> None:
    """A training process that lacks torch is told how to get it."""
    script = BLOCKED.format(blocked={"torch"}) + "import otel_train\notel_train.init()"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "otel_train.init needs torch" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "message"),
    [("my-rnu", "did you mean 'my-run'?"), ("other", "rings are in my-run there"), ("no/where", "neither")],
)
def test_a_sidecar_for_a_mistyped_directory_is_refused(name: str, message: str, tmp_path: Path) -> None:
    """Nothing is made, and the job that was probably meant is named."""
    (tmp_path / "my-run").mkdir()
    (tmp_path / "my-run" / "rank00000-1.ring").touch()
    result = CliRunner().invoke(main, ["sidecar", str(tmp_path / name)])
    assert (result.exit_code, message in result.output) == (2, True), result.output
    assert [path.name for path in tmp_path.iterdir()] == ["my-run"]
