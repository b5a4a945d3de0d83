"""Give rows to wandb: one wandb run for each run id, any number of them in one process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from otel_train.bridge.identity import display_name, safe_id
from otel_train.bridge.rows import STEP_KEY

if TYPE_CHECKING:
    from otel_train.bridge.inbox import SealedRow

_log = logging.getLogger(__name__)


class RowSink(Protocol):
    """Where rows go."""

    def open(self, run_id: str) -> int:
        """Open a run, if it is not open, and return the smallest ordinal that it takes."""

    def write(self, run_id: str, sealed: SealedRow) -> None:
        """Give one row to an open run; one with an ordinal that the run has already changes nothing."""

    def close(self, run_id: str) -> None:
        """Finish a run; one that is not open is left alone."""


class WandbSink:
    """The sink that is wandb.

    A row's ordinal is passed as wandb's `step`, so that `_step` counts on over restarts of the bridge, tells from a
    file or a server how far a run got, and makes wandb itself drop a row that it has. The train step can't be that:
    a resumed attempt goes back to a smaller one. It is a value of the row, and the axis of all others.

    Args:
        state_dir: Where wandb keeps its files, in a folder `wandb`.
        mode: "offline" or "online".
        project: The wandb project.
    """

    def __init__(self, state_dir: Path, mode: str, project: str) -> None:
        self._state_dir = state_dir
        self._mode = mode
        self._project = project
        self._runs: dict[str, Any] = {}

    def open(self, run_id: str) -> int:
        """Open a run, if it is not open, and return the smallest ordinal that it takes."""
        if run_id in self._runs:
            return 0
        import wandb  # noqa: PLC0415  # it takes most of a second, and a reader of the inbox needs none of it

        run = wandb.init(
            dir=str(self._state_dir),
            id=safe_id(run_id),
            name=display_name(run_id),
            project=self._project,
            mode="online" if self._mode == "online" else "offline",
            reinit="create_new",
            # Without it an online run of that id would be begun anew; offline there is nothing to look it up in.
            resume="allow" if self._mode == "online" else None,
            settings=wandb.Settings(
                silent=True,
                console="off",
                save_code=False,
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
                x_transaction_log_flush_interval=0.5,
                # By default "stop" in wandb's page would interrupt this process, which serves other runs too.
                stop_fn=lambda: _log.warning("wandb asks to stop run %r; its job goes on", run_id),
            ),
        )
        run.define_metric(STEP_KEY)
        run.define_metric("*", step_metric=STEP_KEY)
        self._runs[run_id] = run
        return int(run.step)

    def write(self, run_id: str, sealed: SealedRow) -> None:
        """Give one row to an open run, under the time at which the step was measured."""
        row = {**sealed.row, "_timestamp": sealed.time_ns / 1e9}
        self._runs[run_id].log(row, step=sealed.ordinal, commit=True)

    def close(self, run_id: str) -> None:
        """Finish a run; one that is not open is left alone."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            run.finish()
