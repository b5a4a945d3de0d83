"""The output of commands on terminals of any width and encoding, and in pipes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from otel_train.catalogue import CATALOGUE
from otel_train.cli.catalogue_text import print_catalogue
from tests.support.job_rings import write_job


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command with its output in pipes."""
    own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "PYTHONIOENCODING")}
    command = [sys.executable, "-m", "otel_train", *arguments]
    return subprocess.run(command, env=own | environment, capture_output=True, check=False)


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the rings of a job with a starved reader."""
    directory = tmp_path_factory.mktemp("rings")
    write_job(directory, 2, 30, starved=1, name="naïve…")
    return directory


@pytest.mark.parametrize("command", ["catalogue", "catalogue --json", "doctor RINGS", "top --once RINGS", "dump RINGS"])
def test_ascii_output_replaces_characters(command: str, rings: Path) -> None:
    """An encoding without box characters or dashes ends no command."""
    words = command.replace("RINGS", str(rings)).split()
    result = run(*words, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (result.stderr, result.returncode in (0, 1)) == (b"", True)
    assert result.stdout.isascii()


def test_pipe_gets_whole_lines() -> None:
    """Each metric is a line with its whole name, whatever the width of a terminal would be."""
    lines = run("catalogue").stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["name", *(metric.name for metric in CATALOGUE)]
    assert lines[1].endswith(CATALOGUE[0].remedy)


def test_piped_findings_are_whole(rings: Path) -> None:
    """In a pipe the remedy of a finding is on one line."""
    lines = run("doctor", str(rings)).stdout.decode().splitlines()
    assert [line for line in lines if line.strip().startswith("remedy: ") and line.endswith(".")]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_catalogue_fits_terminal(width: int) -> None:
    """Every name is there, and no line is longer than the terminal is wide."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_catalogue(console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert all(any(metric.name in line for line in lines) for metric in CATALOGUE if len(metric.name) <= width)
