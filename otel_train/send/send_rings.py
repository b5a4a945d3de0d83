"""Deliver what the rings in some directories hold, each as its owner."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from otel_train.descriptors import allow_descriptors
from otel_train.endpoint import Endpoint
from otel_train.send.deliver import deliver, load_libraries
from otel_train.send.figures import DirectoryFigures, State, from_json
from otel_train.send.owner_process import OwnerProcess, readable
from otel_train.send.owners import Unusable, by_owner, ring_directories
from otel_train.send.time_limit import TimeLimit

DESCRIPTORS = 1 << 16
"""Files that it opens at most: one for each ring, and a lock for each directory."""
MOST_AT_ONCE = 8
"""Users whose rings root sends at once: each is a process of some 50 MB."""
PATIENCE = 2.0
"""Seconds that a user's process only waits for others while users' are to come: then they go first."""
EXTRA = 5.0
"""Seconds that a user's process may take longer than the time, before it is killed: a file system may hang."""
_LOOK = 0.2
"""Seconds between two looks at whether a signal has come."""

Paths = Sequence[tuple[Path, bool]]
"""Paths, and whether the user has named each."""


def send_rings(paths: Iterable[Path], timeout: float, *, clean: bool = False) -> list[DirectoryFigures]:
    """Deliver what rings hold at this moment, whoever wrote them, and return the figures of each directory.

    It goes on until all that was recorded at the call is acknowledged, also by another process that serves a directory,
    or until the time is over; SIGTERM and SIGINT end it earlier. In the main thread only.

    Args:
        paths: Directories of rings, or directories that hold such ones. Root sends each as the user whose it is.
        timeout: Seconds that it takes at most.
        clean: Whether the rings of jobs that have ended are removed when all is delivered.

    Raises:
        ConfigurationError: A variable that names the receiver does not hold what it must.
    """
    until = time.monotonic() + timeout
    Endpoint.read()
    allow_descriptors(DESCRIPTORS)
    owned, figures = by_owner(paths)
    limit = TimeLimit(until)
    if owned.keys() <= {os.geteuid()}:
        return figures + _deliver(owned.get(os.geteuid(), ()), limit, clean=clean)[0]
    with limit.wakeup.handling({signal.SIGTERM: limit.stop, signal.SIGINT: limit.stop}):
        return sorted(
            figures + _deliver_as_owners(owned, limit, until, clean=clean), key=lambda figures: figures.directory
        )


def _deliver(
    paths: Paths, limit: TimeLimit, *, clean: bool, patience: float = math.inf
) -> tuple[list[DirectoryFigures], Paths]:
    """Deliver what is this process's user's at some paths, and return what is to be asked for again."""
    figures: list[DirectoryFigures] = []
    directories: dict[Path, bool] = {}
    for path, named in paths:
        try:
            usable, unusable = ring_directories(path, named=named)
        except Unusable as error:
            usable, unusable = [], [error.figures]
        for directory, is_named in usable:
            directories[directory] = directories.get(directory, False) or is_named
        figures += unusable
    sent, waiting = deliver(list(directories.items()), limit, clean=clean, patience=patience)
    return figures + sent, waiting


def _deliver_as_owners(
    owned: Mapping[int, Paths], limit: TimeLimit, until: float, *, clean: bool
) -> list[DirectoryFigures]:
    """Deliver each user's rings in a process of the user's; one that only waits for others goes behind the rest."""
    figures: list[DirectoryFigures] = []
    paths, before = dict(owned), dict[str, DirectoryFigures]()
    waiting, running = sorted(owned), list[OwnerProcess]()
    told = False
    while waiting or running:
        while waiting and len(running) < MOST_AT_ONCE and limit.left:
            uid = waiting.pop(0)
            patience = PATIENCE if waiting else math.inf
            work = partial(_work, paths[uid], limit, until, clean=clean, patience=patience)
            running.append(OwnerProcess(uid, work, prepare=load_libraries))
        if limit.stopped and not told:
            told = True
            for process in running:
                process.stop()
        if not limit.left and not running:
            break
        for process in readable(running, _LOOK):
            if process.read():
                running.remove(process)
                sent, again = _result(process, paths[process.uid])
                for entry in sent:
                    if entry.directory in before:
                        entry.add(before.pop(entry.directory))
                    if entry.directory in {str(path) for path, _ in again}:
                        before[entry.directory] = entry
                    else:
                        figures.append(entry)
                if again:
                    paths[process.uid] = again
                    waiting.append(process.uid)
        if time.monotonic() > until + EXTRA:
            for process in running:
                process.stop(signal.SIGKILL)
    for uid in waiting:
        figures += [entry for entry in _not_sent(paths[uid], str(limit)) if entry.directory not in before]
    return figures + list(before.values())


def _work(paths: Paths, limit: TimeLimit, until: float, *, clean: bool, patience: float) -> dict[str, Any]:
    """Deliver in a child: its limit is its own, for a wakeup is one process's."""
    own = TimeLimit(until)
    with own.wakeup.handling({signal.SIGTERM: own.stop, signal.SIGINT: own.stop}):
        own.stopped = own.stopped or limit.stopped  # by a signal that came before, to the parent's handler
        sent, again = _deliver(paths, own, clean=clean, patience=patience)
    return {"sent": [asdict(figures) for figures in sent], "again": [(str(path), named) for path, named in again]}


def _result(process: OwnerProcess, paths: Paths) -> tuple[list[DirectoryFigures], Paths]:
    """Return a process's figures, and the paths that are to be asked for again."""
    try:
        result = process.result()
    except ChildProcessError as error:
        return _not_sent(paths, str(error)), ()
    again = [(Path(path), named) for path, named in result["again"]]
    return [from_json(content) for content in result["sent"]], again


def _not_sent(paths: Paths, reason: str) -> list[DirectoryFigures]:
    return [DirectoryFigures(directory=str(path), state=State.LEFT, reason=reason) for path, _ in paths]
