"""Deliver several directories of rings at once, so that one that is held up keeps no other waiting."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from otel_train.catalogue import Layout
from otel_train.endpoint import Endpoint
from otel_train.otlp.exporter import Exporter
from otel_train.otlp.protocol import OtlpProtocol
from otel_train.ring import Identity, look_at_run, remove_run
from otel_train.send.backlog import Backlog, receiver_is_missing
from otel_train.send.figures import DirectoryFigures, State
from otel_train.send.time_limit import BoundedExporter, TimeLimit
from otel_train.sidecar.points import Origin

POLL = 0.2
"""Seconds between two looks at directories that something holds up."""
LONGEST_PAUSE = 2.0
"""Longest pause, in seconds, between two tries of a failing receiver."""


def deliver(
    directories: Sequence[tuple[Path, bool]], limit: TimeLimit, *, clean: bool, patience: float = math.inf
) -> tuple[list[DirectoryFigures], list[tuple[Path, bool]]]:
    """Deliver what rings of this process's user hold, and return the figures.

    Args:
        directories: Directories of rings, and whether the user has named each.
        limit: When to end; SIGTERM and SIGINT end it earlier. In the main thread only.
        clean: Whether the rings of jobs that have ended are removed when all is delivered.
        patience: Seconds after which it ends where nothing is left to do but to wait for other processes.

    Returns:
        The figures, and the directories for which it ended so: what was passed of them.
    """
    waiting: list[Backlog] = []
    backlogs = [Backlog(path, named=named) for path, named in directories]
    with limit.wakeup.handling({signal.SIGTERM: limit.stop, signal.SIGINT: limit.stop}):
        try:
            pending = [backlog for backlog in backlogs if not _is_done(backlog, backlog.look)]
            if pending:
                waiting = _send(pending, limit, patience)
        finally:
            for backlog in backlogs:
                backlog.close()
    figures = [backlog.figures(str(limit)) for backlog in backlogs]
    for delivered in (entry for entry in figures if clean and entry.state is State.DELIVERED):
        run = look_at_run(Path(delivered.directory))
        if run is not None and run.done and remove_run(run):
            delivered.freed = run.size
    return figures, [given for given, backlog in zip(directories, backlogs, strict=True) if backlog in waiting]


def load_libraries() -> None:
    """Load what a delivery loads on its way: a process that becomes another user may not be able to read it then.

    For that a request goes to a port of this machine where nothing can listen.
    """
    endpoint = Endpoint.read()
    nowhere = "http://127.0.0.1:0/v1/metrics" if endpoint.protocol is OtlpProtocol.HTTP else "127.0.0.1:0"
    closed = endpoint._replace(target=nowhere, host="127.0.0.1", secure=False)
    Origin(Identity(run_id="", attempt=0), Layout(()))
    exporter = Exporter(closed)
    exporter.send(b"", longest=1.0)
    exporter.close()


def _send(pending: list[Backlog], limit: TimeLimit, patience: float) -> list[Backlog]:
    """Send all, and return those that only others are waited for, when the patience is over."""
    endpoint = Endpoint.read()
    missing = receiver_is_missing(endpoint)
    pause, worked = POLL, time.monotonic()
    with BoundedExporter(endpoint, limit) as exporter:
        while pending and limit.left:
            pending = [backlog for backlog in pending if not _advance(backlog, exporter, missing)]
            if not all(backlog.is_waiting for backlog in pending):
                worked = time.monotonic()
            elif time.monotonic() - worked > patience:
                return pending
            held_up = all(backlog.is_held_up for backlog in pending)
            pause = min(LONGEST_PAUSE, 2 * pause) if held_up else POLL
            if pending:
                limit.pause(max(pause, *(backlog.delay for backlog in pending)) if held_up else 0.0)
    return []


def _advance(backlog: Backlog, exporter: BoundedExporter, missing: str) -> bool:
    def advance() -> bool:
        return backlog.advance(exporter, missing)

    return _is_done(backlog, advance)


def _is_done(backlog: Backlog, action: Callable[[], bool]) -> bool:
    """Run an action of one directory; one that raises ends this directory's delivery, and no other's."""
    try:
        done = action()
    except Exception as error:  # noqa: BLE001  # damaged values, a file system's errors
        backlog.reason = f"it can't be delivered: {str(error) if isinstance(error, OSError) else repr(error):.300}"
        done = True
    if done:  # a process may have few descriptors, and a machine many directories
        backlog.close()
    return done
