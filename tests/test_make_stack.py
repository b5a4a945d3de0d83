"""`make stack` where something is missing: one line, which says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("bash", "dirname", "cat")


@pytest.mark.parametrize(
    ("docker", "complaint"),
    [
        (None, "docker is not installed: install Docker Engine and its compose plugin"),
        ("exit 1", "docker has no compose plugin: install docker-compose-plugin"),
        ('[ "$1" = compose ]', "no docker engine answers: start it, and see that this user may use it"),
    ],
)
def test_missing_docker_is_one_line(docker: str | None, complaint: str, tmp_path: Path) -> None:
    """A missing command, compose plugin or engine is one line, with what to do without docker."""
    for name in NEEDED:
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    if docker is not None:
        (tmp_path / "docker").write_text(f"#!{tmp_path}/bash\n{docker}\n")
        (tmp_path / "docker").chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / "tools" / "stack-up.sh")],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"make stack: {complaint}; without docker, `make demo` shows the same values, wandb offline\n"
