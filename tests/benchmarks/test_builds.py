"""`benchmarks.builds`: processes of several builds, which take turns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.builds import GIVEN, BaselineMissingError, Contender, baseline, running, take_turns
from benchmarks.fresh import ROOT

SESSION = Contender(name="otel_train", environment={"OTEL_TRAIN_SIDECAR": "external"})


def test_builds_take_turns() -> None:
    """Each contender gives a median a round, whatever its steps come after, and has then done its work."""
    with running({"nothing": Contender(name="nothing"), "ours": SESSION}) as processes:
        figures = [
            take_turns(processes, before, rounds=2, steps=5, readers=readers)
            for before, readers in (("loop", 4), ("torch", 4), ("loop", 64))
        ]
    assert [len(taken[label].medians) for taken in figures for label in ("ours", "nothing")] == [2] * 6


def test_wrong_build_is_refused(tmp_path: Path) -> None:
    """A process that imports another build than it should is an error, not a figure."""
    wrong = Contender(name="otel_train", root=tmp_path, environment=SESSION.environment)
    with pytest.raises(RuntimeError, match="is not of"), running({"wrong": wrong}):
        pass


def test_failing_contender_says_why(tmp_path: Path) -> None:
    """A contender that can't be set up gives what it printed."""
    broken = tmp_path / "otel_train"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('no such build')")
    with (
        pytest.raises(RuntimeError, match="no such build"),
        running({"x": Contender(name="otel_train", root=tmp_path)}),
    ):
        pass


@pytest.mark.parametrize("given", ["nowhere", "."])
def test_folder_without_build_is_refused(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline that is no checkout is refused before anything is measured."""
    monkeypatch.setenv(GIVEN, str(tmp_path / given))
    with pytest.raises(BaselineMissingError, match="must be a checkout"), baseline():
        pass


def test_given_folder_is_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that the variable names is the baseline, whatever the history has."""
    monkeypatch.setenv(GIVEN, str(ROOT))
    with baseline() as root:
        assert root == ROOT


@pytest.mark.parametrize("options", [["--baseline", "nowhere"], []])
def test_missing_baseline_is_one_line(options: list[str], tmp_path: Path) -> None:
    """Without the baseline, in the history or given, a section that needs it ends with one line."""
    environment = {**os.environ, "GIT_DIR": str(tmp_path)}
    call = [sys.executable, "-m", "benchmarks", "--quick", "ledger_alone", *options]
    run = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    [line] = run.stderr.splitlines()
    assert (run.returncode, "--baseline" in line) == (2, True)
