"""Read which commit a job's program is of, from git's files: no other process is started, and git need not be there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REMOTE = re.compile(r'^\[remote "origin"\][^\[]*?^\s*url\s*=\s*(\S+)', re.MULTILINE)
_PARENTS = 32
"""Directories that are looked at above the program's."""
_MOST_BYTES = 2**22


def git_facts() -> dict[str, str]:
    """Return commit, branch and remote of the checkout that the program is in, else the working directory.

    Whether the checkout has changes is not among them: only git itself could tell, in seconds for a large one.

    Returns:
        By name; nothing where there is no checkout, or where it can't be read.
    """
    for directory in _directories():
        try:
            facts = _facts_of(directory)
        except (OSError, ValueError, RuntimeError):
            continue
        if facts:
            return facts
    return {}


def _directories() -> Iterator[Path]:
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    if isinstance(program, str):
        yield Path(program).absolute().parent
    try:
        yield Path.cwd()
    except OSError:  # it is removed
        return


def _facts_of(directory: Path) -> dict[str, str]:
    git = next((git for above in (directory, *directory.parents)[:_PARENTS] if (git := _git_directory(above))), None)
    if git is None:
        return {}
    common = git / shared if (shared := _read(git / "commondir").strip()) else git  # a worktree's
    head = _read(git / "HEAD").strip()
    reference = head.removeprefix("ref:").strip() if head.startswith("ref:") else ""
    commit = _resolve(reference, git, common) if reference else head
    if not _COMMIT.fullmatch(commit):
        return {}
    facts = {"git.commit": commit}
    if reference.startswith("refs/heads/"):
        facts["git.branch"] = reference.removeprefix("refs/heads/")
    if (remote := _REMOTE.search(_read(common / "config"))) and (address := _without_credentials(remote[1])):
        facts["git.remote"] = address
    return facts


def _git_directory(directory: Path) -> Path | None:
    """Return git's directory of a checkout; in a worktree or submodule a file names it."""
    git = directory / ".git"
    if git.is_dir():
        return git
    named = _read(git).strip()
    return directory / named.removeprefix("gitdir:").strip() if named.startswith("gitdir:") else None


def _resolve(reference: str, git: Path, common: Path) -> str:
    if not reference.startswith("refs/") or ".." in reference:
        return ""
    for directory in (git, common):
        if commit := _read(directory / reference).strip():
            return commit
    for line in _read(common / "packed-refs").splitlines():
        if line.endswith(f" {reference}"):
            return line.partition(" ")[0]
    return ""


def _read(path: Path) -> str:
    """Return what a file says; nothing where it is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(_MOST_BYTES).decode(errors="replace")


def _without_credentials(url: str) -> str:
    """Return an address without user, password and query; git's short form (git@host:path) has no password."""
    if "://" not in url:
        return "" if url.startswith(("/", ".", "~")) else url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else ""
