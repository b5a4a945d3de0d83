"""The command that delivers what rings still hold: send."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otel_train.cli.checked_paths import UserPath
from otel_train.cli.command_group import Command
from otel_train.exceptions import ConfigurationError
from otel_train.number_text import byte_size
from otel_train.printable import printable

if TYPE_CHECKING:
    from otel_train.send import DirectoryFigures

TIMEOUT = 60.0
"""Seconds that it takes at most: a batch system's epilog holds a node as long."""

_CARRIED = ("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME")


@click.command(
    cls=Command,
    examples=(
        "otel-train send",
        "otel-train send /local/rings/my-run",
        "otel-train send --timeout 20 --json /dev/shm/otel_train-$SLURM_JOB_UID",
    ),
)
@click.argument("directories", nargs=-1, metavar="[DIR]...", type=UserPath())
@click.option("--timeout", default=TIMEOUT, show_default=True, help="Seconds that it takes at most.")
@click.option("--clean", is_flag=True, help="Remove the rings of jobs that have ended, where all is delivered.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def send(directories: tuple[Path, ...], timeout: float, *, clean: bool, as_json: bool) -> None:
    """Deliver what rings still hold, and end: after a job whose sidecar was killed, or whose receiver was away.

    DIR holds rings, or folders with rings; by default it is that of all your jobs on this machine. The standard
    OTEL_EXPORTER_OTLP_* variables say where to. Root sends each directory as the user whose it is.

    What was recorded until now is delivered once, in the way of a sidecar: any number of sends, and sidecars, may be
    at work on a directory. One that another process serves is waited for, and taken over when that leaves. The sidecar
    of a job that has ended is asked to make way where its receiver takes nothing, and this one's answers. Of a job that
    goes on, only what it has recorded until now is waited for.

    The exit code is 0 when all of that is acknowledged, 1 when something is left (what, where and why is printed), 2
    when the command was called wrongly or a DIR does not exist. Points that the receiver refuses for good, and records
    that were overwritten, are counted and not left: no later call could deliver them. SIGTERM ends it with its figures,
    after the request that is under way.
    """
    began = time.monotonic()
    from otel_train.ring import default_bases  # noqa: PLC0415
    from otel_train.send import State, send_rings  # noqa: PLC0415
    from otel_train.send.figures import as_json as to_json  # noqa: PLC0415
    from otel_train.send.figures import exit_code  # noqa: PLC0415

    if not 0 < timeout < math.inf:
        raise ConfigurationError(f"send: --timeout must be a positive number of seconds, got {timeout}")
    with _logging_to_stderr(), _without_variables():
        figures = send_rings(directories or default_bases(), timeout - (time.monotonic() - began), clean=clean)
    if as_json:
        click.echo(json.dumps(to_json(figures), indent=2))
    else:
        shared = Counter(directory.reason for directory in figures if directory.state is State.LEFT)
        for directory in figures:
            _print(directory, reason="" if shared[directory.reason] > 1 else directory.reason)
        for reason in (reason for reason, count in shared.items() if count > 1):
            click.echo(f"otel-train: {printable(reason)}", err=True)
        if not figures:
            click.echo("no job of yours has rings on this machine")
    sys.exit(exit_code(figures))


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Have what the command waits for on stderr; what a sidecar would log is in the figures."""
    package, own, handler = (
        logging.getLogger("otel_train"),
        logging.getLogger("otel_train.send"),
        logging.StreamHandler(),
    )
    handler.setFormatter(logging.Formatter("otel-train: %(message)s"))
    levels = package.level, own.level
    package.setLevel(logging.CRITICAL)
    own.setLevel(logging.INFO)
    own.addHandler(handler)
    try:
        yield
    finally:
        own.removeHandler(handler)
        package.setLevel(levels[0])
        own.setLevel(levels[1])


@contextlib.contextmanager
def _without_variables() -> Iterator[None]:
    """Leave out of the environment what each ring carries for itself: host and job are the writer's."""
    left_out = {name: os.environ.pop(name) for name in _CARRIED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(left_out)


def _print(figures: DirectoryFigures, reason: str) -> None:
    """Print a directory's figures: one line, on stderr where something is wrong, and one for what is lost."""
    from otel_train.refusals import reasons_text  # noqa: PLC0415
    from otel_train.send import State  # noqa: PLC0415

    count = figures.total("delivered")
    parts = []
    if count:
        by = "" if figures.by != "another" else ", by the process that serves it"
        parts.append(f"{count} records delivered ({figures.total('points')} points{by})")
    elif figures.state is State.DELIVERED:
        parts.append("nothing is left to send")
    if figures.state is State.LEFT:
        rings = sum(bool(run.left) for run in figures.runs)
        parts.append(f"{figures.total('left')} records are left" if rings else "it is not delivered")
    if reason:
        parts.append(reason)
    if figures.freed:
        parts.append(f"removed, {byte_size(figures.freed)}")
    wrong = figures.state in (State.LEFT, State.MISSING)
    click.echo(printable(f"{figures.directory}: {'; '.join(parts)}"), err=wrong)
    for path, why in figures.unreadable.items():
        if why != figures.reason:
            click.echo(printable(f"{figures.directory}/{path}: {why}"), err=True)
    lost = []
    if figures.total("refused"):
        reasons = reasons_text(figures.refusals)
        lost.append(f"{figures.total('refused')} points are refused for good: {reasons} ({figures.refusal})")
    if figures.total("overwritten"):
        lost.append(f"{figures.total('overwritten')} records were overwritten before anybody sent them, or are torn")
    if lost:
        click.echo(printable(f"{figures.directory}: {'; '.join(lost)}"), err=True)
