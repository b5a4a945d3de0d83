"""The cluster's scripts of deploy/slurm without a cluster: what they call and print, whatever their settings are."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_train.ring import directory
from tests.support.environment import clean_environment

FOLDER = Path(__file__).parents[2] / "deploy" / "slurm"
NOBODY = 65534
MEETS = """#!/bin/sh
echo "$*" >"{calls}/$$"
for _ in $(seq 300); do
    [ "$(ls "{calls}" | wc -l)" -lt 2 ] || exit 0
    sleep 0.1
done
echo alone >>"{calls}/$$"
"""
"""A command that waits for another call of it."""


def script(name: str, settings: Path, user: int | None = None, **more: str) -> str:
    """Run a script as slurmd would and return what it printed; its exit code must be 0."""
    job = {"OTEL_TRAIN_SLURM_ENV": str(settings), "SLURM_JOB_ID": "43", "SLURM_JOB_UID": str(os.geteuid())}
    environ = clean_environment(**job | more)
    # Another user can't read the checkout.
    with (FOLDER / name).open() as text:
        done = subprocess.run(
            ["sh"], stdin=text, env=environ, user=user, cwd="/", capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def memory() -> Iterator[list[Path]]:
    """Return directories that are a user's in memory, whose number is this test's alone."""
    user = 4_000_000 + os.getpid()
    made = [directory.MEMORY / f"otel_train-{user}{end}" for end in ("", "-1", "-7")]
    for path in made:
        path.mkdir()
    yield made
    for path in made:
        path.rmdir()


def test_epilog_takes_one_timeout(memory: list[Path], tmp_path: Path) -> None:
    """All directories in memory are one call's, and that on the disk is sent beside it."""
    user = memory[0].name.rpartition("-")[2]
    (own := tmp_path / "rings" / user).mkdir(parents=True)
    (calls := tmp_path / "calls").mkdir()
    (command := tmp_path / "command").write_text(MEETS.format(calls=calls))
    command.chmod(0o755)
    (settings := tmp_path / "slurm.env").write_text(
        f"OTEL_TRAIN_COMMAND={command}\nOTEL_TRAIN_RINGS={own.parent}\nOTEL_TRAIN_SEND_TIMEOUT=7\n"
    )
    script("epilog.sh", settings, SLURM_JOB_UID=user, OTEL_TRAIN_RUN=str(tmp_path / "run"))
    assert sorted(path.read_text() for path in calls.iterdir()) == [
        f"send --timeout 7 --clean {own}\n",
        f"send --timeout 7 {' '.join(map(str, memory))}\n",
    ]


@pytest.mark.parametrize("text", ["OTEL_TRAIN_RINGS=(", "false", "OTEL_TRAIN_RINGS=", None])
@pytest.mark.parametrize("name", ["prolog.sh", "task-prolog.sh", "epilog.sh"])
def test_settings_drain_no_node(name: str, text: str | None, tmp_path: Path) -> None:
    """A script ends well with settings that are no shell, or none: with another code Slurm drains the node."""
    settings = tmp_path / "slurm.env"
    if text is not None:
        settings.write_text(text)
    script(name, settings, OTEL_TRAIN_COMMAND="true", PATH=recording_path(tmp_path))


@pytest.mark.parametrize("rings", ["", "rings"])
def test_prolog_needs_a_folder(rings: str, tmp_path: Path) -> None:
    """Without a folder for rings, or with one that is nowhere certain, nothing is made and no sidecar started."""
    (settings := tmp_path / "slurm.env").write_text(f"OTEL_TRAIN_RINGS={rings}\n")
    script("prolog.sh", settings, PATH=recording_path(tmp_path))
    assert not (tmp_path / "called").exists()
    assert script("task-prolog.sh", settings) == ""


def test_task_prolog_needs_its_settings(tmp_path: Path) -> None:
    """Ranks are left their own sidecar where the job's user can't read the settings, whatever the job has set."""
    (settings := tmp_path / "slurm.env").write_text("OTEL_TRAIN_RINGS=/local/rings\n")
    expected = f"export OTEL_TRAIN_SIDECAR=external\nexport OTEL_TRAIN_RING_DIR=/local/rings/{os.geteuid()}/43\n"
    assert script("task-prolog.sh", settings, OTEL_TRAIN_RINGS="/of/the/job") == expected
    tmp_path.chmod(0o700)
    settings.chmod(0)
    user = None if os.geteuid() else NOBODY
    assert script("task-prolog.sh", settings, user, OTEL_TRAIN_RINGS="/of/the/job") == ""


def recording_path(folder: Path) -> str:
    """Return a PATH on which what the prolog would make is noted instead."""
    (programs := folder / "programs").mkdir(exist_ok=True)
    for name in ("mkdir", "install", "setsid"):
        (program := programs / name).write_text(f"#!/bin/sh\ntouch {folder}/called\n")
        program.chmod(0o755)
    return f"{programs}:{os.environ['PATH']}"
