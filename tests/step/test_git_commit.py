"""The commit of a job's program is read from git's files, as git itself names it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from otel_train.step.git_commit import git_facts
from tests.support.environment import clean_environment


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, without anybody's configuration."""
    environment = clean_environment(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null")
    command = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkout with one commit, in a folder of which the process works."""
    folder = tmp_path / "checkout"
    (folder / "deep").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace())  # as in a notebook
    monkeypatch.chdir(folder / "deep")
    return folder


@pytest.mark.parametrize("state", ["loose", "packed", "detached", "worktree", "worktree packed"])
def test_commit_is_gits(state: str, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However git keeps the reference, commit and branch are those that it names itself."""
    git(checkout, "remote", "add", "origin", "https://user:secret@example.org/group/name.git?token=secret")
    if state == "detached":
        git(checkout, "checkout", "-q", "--detach")
    if "worktree" in state:
        git(checkout, "worktree", "add", "-q", str(tmp_path / "other"), "-b", "feature/x")
        monkeypatch.chdir(tmp_path / "other")
    if "packed" in state:
        git(checkout, "pack-refs", "--all")
    facts = git_facts()
    assert facts.pop("git.commit") == git(Path.cwd(), "rev-parse", "HEAD")
    assert facts.pop("git.branch", "HEAD") == git(Path.cwd(), "rev-parse", "--abbrev-ref", "HEAD")
    assert facts == {"git.remote": "https://example.org/group/name.git"}


def test_program_comes_before_directory(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkout of the program counts, wherever the job was started; without one that of the directory."""
    commit = git(checkout, "rev-parse", "HEAD")
    monkeypatch.chdir(tmp_path)
    assert git_facts() == {}
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(checkout / "deep" / "train.py"), raising=False)
    assert git_facts() == {"git.commit": commit, "git.branch": "main"}


@pytest.mark.parametrize("head", ["", "ref: refs/heads/none", "ref: ../../secret", "\xff\x00", "a" * 40 + "x"])
def test_odd_checkout_has_no_commit(head: str, checkout: Path) -> None:
    """A checkout without a commit, or a damaged one, is no error."""
    (checkout / ".git" / "HEAD").write_text(head)
    assert git_facts() == {}
