"""The command that removes the rings of jobs that have ended: clean."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otel_train.cli.checked_paths import UserPath
from otel_train.cli.command_group import Command
from otel_train.exceptions import ConfigurationError, OtelTrainError
from otel_train.number_text import byte_size

if TYPE_CHECKING:
    from otel_train.ring import KeptRun


@click.command(
    cls=Command,
    examples=(
        "otel-train clean --dry-run",
        "otel-train clean",
        "otel-train clean --undelivered /dev/shm/otel_train-$UID/my-run",
    ),
)
@click.argument("directory", required=False, type=UserPath())
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--undelivered", is_flag=True, help="Remove also what no receiver has acknowledged, or can't be read.")
def clean(directory: Path | None, *, dry_run: bool, undelivered: bool) -> None:
    """Remove the rings of jobs that have ended and whose records are delivered.

    DIRECTORY holds rings, or folders with rings; by default it is that of all your jobs on this machine. There a job
    removes by itself what is older than a week, and of the rest what is beyond 8 runs or 256 MiB.

    What a running job uses stays.
    """
    from otel_train.ring import remove_run  # noqa: PLC0415

    freed = 0
    for run in _runs(directory):
        reason = _kept_for(run, undelivered=undelivered)
        if not reason and not dry_run and not remove_run(run):
            reason = "another process uses it by now"
        if reason:
            click.echo(f"{run.directory}: kept, {reason}")
            continue
        freed += run.size
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.ended))
        verb = "would be removed" if dry_run else "removed"
        click.echo(f"{run.directory}: {verb}, {run.rings} rings, {byte_size(run.size)}, ended {when}")
    click.echo(f"{'would free' if dry_run else 'freed'} {byte_size(freed)}")


def _runs(directory: Path | None) -> list[KeptRun]:
    from otel_train.paths import absolute  # noqa: PLC0415
    from otel_train.ring import default_bases, look_at_run, ring_files  # noqa: PLC0415

    if directory is None:
        bases = default_bases()
    else:
        base = absolute(directory)
        if not base.is_dir():
            raise ConfigurationError(
                f"{directory} is not a directory; give a job's OTEL_TRAIN_RING_DIR, or none at all"
            )
        run = look_at_run(base) if ring_files(base) else None
        if run is not None:
            return [run]
        bases = [base]
    inside = sorted(path for base in bases for path in base.iterdir() if path.is_dir() and not path.is_symlink())
    runs = [run for path in inside if (run := look_at_run(path)) is not None and (run.rings or directory is None)]
    if directory is not None and not runs:
        raise OtelTrainError(f"{directory} holds no rings of yours, or other files beside them; nothing is removed")
    return runs


def _kept_for(run: KeptRun, *, undelivered: bool) -> str:
    """Return why a run's rings stay; empty where they are removed."""
    if run.live:
        return "its job or its sidecar runs"
    if run.unreadable and not undelivered:
        return f"{run.unreadable} of its files are not rings of this release; --undelivered removes them"
    if run.undelivered and not undelivered:
        return (
            f"{run.undelivered} records are not delivered; `otel-train send {run.directory}` sends them, "
            "--undelivered removes them"
        )
    return ""
