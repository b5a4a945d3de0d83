"""The line that says that a command is still at work."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from otel_train.cli.progress_line import progress
from otel_train.how_far import tell
from tests.support.job_rings import write_job
from tests.support.waiting import wait_until


class Terminal(io.StringIO):
    """Where somebody looks."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_long_work_is_told() -> None:
    """A line says what is done, again and again, and is gone at the end."""
    terminal = Terminal()
    with progress("reading", terminal, 0.001):
        wait_until(lambda: terminal.getvalue().count("reading, ") > 1, what="two lines")
    assert terminal.getvalue().endswith("\r\033[K")


def test_line_has_shares() -> None:
    """The line says how far each part is that has begun and not ended."""
    terminal = Terminal()
    with progress("reading", terminal, 0.001):
        tell("rings read", 1, 4)
        tell("records checked", 1, 2)
        both, one = (re.compile(f"reading: rings read 25 %{rest}, [0-9]+ s") for rest in (", records checked 50 %", ""))
        wait_until(lambda: bool(both.search(terminal.getvalue())), what="both")
        tell("records checked", 2, 2)
        seen = len(terminal.getvalue())
        wait_until(lambda: bool(one.search(terminal.getvalue(), seen)), what="the one that goes on")


def test_pipe_gets_no_line() -> None:
    """What is no terminal gets nothing."""
    pipe = io.StringIO()
    with progress("reading", pipe, 0.0):
        pass
    assert not pipe.getvalue()


def test_dump_to_file_is_told(tmp_path: Path) -> None:
    """`dump` says on a terminal that it writes a file; the file is a pipe here, on whose reader it waits."""
    rings, pipe = tmp_path / "rings", tmp_path / "pipe"
    rings.mkdir()
    write_job(rings, 1, 3)
    os.mkfifo(pipe)
    terminal, end = pty.openpty()
    command: list[str | Path] = [sys.executable, "-m", "otel_train", "dump", rings, "--format", "csv", "--out", pipe]
    with subprocess.Popen(command, stderr=end) as dump:
        os.close(end)  # now a dump that dies ends the terminal
        shown = b""
        while b"writing the records, 1 s" not in shown:
            shown += os.read(terminal, 1000)
        assert len(pipe.read_text().splitlines()) > 3
        assert dump.wait(60) == 0
    os.close(terminal)
