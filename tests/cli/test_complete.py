"""Completion in a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from otel_train.cli import main


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
