"""Write rows to wandb: one wandb run for each run id, any number of them in one process."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from otel_train.bridge.errors import BridgeError, WandbKeyError
from otel_train.bridge.troubles import LASTING
from otel_train.bridge.wandb_environment import neutral, without_reports
from otel_train.bridge.wandb_file import WANDB_FOLDER
from otel_train.bridge.wandb_processes import end_writers
from otel_train.bridge.wandb_runs import OfflineRun, OnlineRun, stored

if TYPE_CHECKING:
    from otel_train.bridge.inbox import SealedRow
    from otel_train.bridge.run_end import RunEnd

logger = logging.getLogger(__name__)

LEAST_FREE_BYTES = 16 * 2**20
"""Free bytes on the disk to open a run: after its first failed write wandb writes nothing more, without a message."""
ASKERS = 4
"""Concurrent requests to the server for how far a run is: a slow one holds up few others."""
OFFLINE_PATIENCE, ONLINE_PATIENCE = 30.0, 120.0


@dataclass(frozen=True, slots=True)
class Opened:
    """State of a run when it was opened."""

    next_ordinal: int
    """The smallest ordinal that it takes."""
    durable: Iterable[int]
    """Ordinals of rows that it has already, from the requested one on."""


class RowSink(Protocol):
    """Destination of rows."""

    patience: float
    """Seconds in which a row becomes durable if nothing fails."""

    def prepare(self) -> None:
        """Prepare what takes long and needs no run; called once, before everything else."""

    def open(self, run_id: str, since: int | None) -> Opened:
        """Open a run that is not open; `since` is the first ordinal whose row may or may not be there."""

    def write(self, run_id: str, sealed: SealedRow) -> None:
        """Write one row to an open run; ordinals grow from row to row."""

    def durable(self, run_id: str) -> Iterable[int]:
        """Return the ordinals of rows of an open run that have become durable since the last call."""

    def describe(self, run_id: str, config: dict[str, Any], summary: dict[str, Any]) -> None:
        """Set config and summary of an open run, beside what an earlier attempt had."""

    def close(self, run_id: str, end: RunEnd) -> Iterable[int]:
        """Finish a run with its end, and return what has become durable; one that is not open is left."""

    def reset(self) -> None:
        """Give up every open run: nothing that was written before becomes durable after this."""

    def abort(self) -> None:
        """Let a call that hangs in another thread fail."""


class WandbSink:
    """The sink that is wandb.

    A row's ordinal is passed as wandb's `step`, so that `_step` counts on over restarts of the bridge, and a file or a
    server tells how far a run got. The train step can't do that: a resumed attempt goes back to a smaller one. It is a
    value of the row, and the axis of all others.

    Args:
        state_dir: The directory with wandb's files, in a folder `wandb`.
        mode: "offline" or "online".
        project: The wandb project.
    """

    def __init__(self, state_dir: Path, mode: str, project: str) -> None:
        self._state_dir = state_dir
        self._folder = state_dir / WANDB_FOLDER
        self._online = mode == "online"
        self._project = project
        self._runs: dict[str, OfflineRun | OnlineRun] = {}
        self._ask = ThreadPoolExecutor(ASKERS, thread_name_prefix="otel_train-bridge-wandb")
        self.patience = ONLINE_PATIENCE if self._online else OFFLINE_PATIENCE

    def prepare(self) -> None:
        """Load wandb, which takes most of a second: requests are taken meanwhile."""
        without_reports()
        import_module("wandb")

    def open(self, run_id: str, since: int | None) -> Opened:
        """Open a run that is not open; `since` is the first ordinal whose row may or may not be there."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if free < LEAST_FREE_BYTES:
            raise BridgeError(f"the disk of {self._folder} is full: {free} bytes are free")
        with neutral():
            if self._online:
                try:
                    run = OnlineRun(run_id, self._state_dir, self._project, self._ask)
                except WandbKeyError as error:
                    self._go_offline(error)
                else:
                    self._runs[run_id] = run
                    next_ordinal = run.starting_ordinal
                    return Opened(next_ordinal, [] if since is None else range(since, next_ordinal))
            durable = [] if since is None else list(stored(self._state_dir, run_id, since))
            self._runs[run_id] = OfflineRun(run_id, self._state_dir, self._project)
            return Opened(0, durable)

    def _go_offline(self, error: WandbKeyError) -> None:
        self._online, self.patience = False, OFFLINE_PATIENCE
        logger.error(
            "wandb refuses the key, rows go to files from now on: %s; correct WANDB_API_KEY, stop the bridge, "
            "upload what is in the files with: otel-train sync %s, and start it again",
            error,
            self._state_dir,
            extra=LASTING,
        )

    def write(self, run_id: str, sealed: SealedRow) -> None:
        """Write one row to an open run, under the time at which the step was measured."""
        self._runs[run_id].write(sealed)

    def durable(self, run_id: str) -> Iterable[int]:
        """Return the ordinals of rows of an open run that have become durable since the last call."""
        return self._runs[run_id].durable()

    def describe(self, run_id: str, config: dict[str, Any], summary: dict[str, Any]) -> None:
        """Set config and summary of an open run, beside what an earlier attempt had."""
        self._runs[run_id].describe(config, summary)

    def close(self, run_id: str, end: RunEnd) -> Iterable[int]:
        """Finish a run with its end, and return what has become durable; one that is not open is left."""
        run = self._runs.pop(run_id, None)
        return [] if run is None else run.finish(end)

    def reset(self) -> None:
        """Give up every open run: nothing that was written before becomes durable after this."""
        import wandb  # noqa: PLC0415  # it takes most of a second, and a reader of the inbox needs none of it

        self._runs.clear()
        self.abort()
        with contextlib.suppress(Exception):  # its process is gone, as intended
            wandb.teardown()

    def abort(self) -> None:
        """Let a call that hangs in another thread fail."""
        end_writers(self._folder, grace=0)
