"""`otel-train doctor` as a user gives it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from click.testing import CliRunner

from otel_train.cli import main
from otel_train.native import IMPLEMENTATION
from otel_train.ring import take_lock
from tests.support.train_job import Train


def test_doctor_prints_findings(train: Train, tmp_path: Path) -> None:
    """Doctor prints text within 80 columns or JSON; the exit code is 0, 1 or, where nothing can be read, 2."""
    train(tmp_path / "well", steps=30)
    train(tmp_path / "bad", steps=30, code=0.95, streams=12)
    text = CliRunner().invoke(main, ["doctor", str(tmp_path / "bad")], env={"COLUMNS": "80"})
    assert text.exit_code == 1
    assert max(len(line) for line in text.output.splitlines()) <= 80
    assert "remedy: Set ledger.capacity from 4 to 12 a rank" in text.output
    lock = take_lock(tmp_path / "well")  # as a sidecar that has yet to send it
    assert lock is not None
    data = CliRunner().invoke(main, ["doctor", str(tmp_path / "well"), "--json"])
    os.close(lock)
    content = json.loads(data.output)
    assert (data.exit_code, content["healthy"], content["capacity"]) == (0, True, None)
    nothing = CliRunner().invoke(main, ["doctor", str(tmp_path / "nowhere")])
    assert (nothing.exit_code, nothing.output.count("\n")) == (2, 1)


def test_doctor_names_implementation(train: Train, tmp_path: Path) -> None:
    """Text, JSON and the report's settings say whether the native core or its twin in Python ran at each step."""
    train(tmp_path, steps=3)
    words = {"native": "the native core in C", "python": "its twin in Python"}
    text = CliRunner().invoke(main, ["doctor", str(tmp_path)])
    assert f"at each step {words[IMPLEMENTATION]} ran" in text.output.splitlines()
    content = json.loads(CliRunner().invoke(main, ["doctor", str(tmp_path), "--json"]).output)
    assert content["core"] == IMPLEMENTATION
    page = tmp_path / "page.html"
    CliRunner().invoke(main, ["report", str(tmp_path), "--out", str(page)])
    assert f"telemetry.core{IMPLEMENTATION}" in re.sub(r"<[^>]*>", "", page.read_text())
