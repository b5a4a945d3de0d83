"""Write to one wandb run, and tell which of its rows are durable, by its file or by its server."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from otel_train.bridge.errors import BridgeError, WandbFileError, WandbKeyError
from otel_train.bridge.run_end import NO_END, RunEnd
from otel_train.bridge.safe_names import display_name, safe_id
from otel_train.bridge.wandb_file import WANDB_FOLDER, TransactionLog, wandb_files
from otel_train.bridge.wandb_rows import STEP_KEY

if TYPE_CHECKING:
    from otel_train.bridge.inbox import SealedRow

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.25
FINISH_SECONDS = 5.0
"""Seconds for a finish; without a bound wandb waits for a server that is away."""
INIT_SECONDS = 30.0
API_SECONDS = 5.0
POLL_SECONDS = 5.0
"""Seconds between two requests to the server for how far it is."""
_REFUSED = re.compile(r"error 40[13]|invalid credentials|API key", re.IGNORECASE)


class OfflineRun:
    """A run whose rows are durable when they are in its file.

    Args:
        run_id: The run.
        state_dir: The directory with wandb's files, in a folder `wandb`.
        project: The wandb project.
    """

    def __init__(self, run_id: str, state_dir: Path, project: str) -> None:
        self._run = _init(safe_id(run_id), display_name(run_id), state_dir, project, mode="offline")
        self._path = Path(self._run.settings.sync_file)
        self._file: TransactionLog | None = None
        self._last_written = -1
        self._last_durable = -1

    def write(self, sealed: SealedRow) -> None:
        """Write a row."""
        _write(self._run, sealed)
        self._last_written = sealed.ordinal

    def durable(self) -> Iterable[int]:
        """Return the ordinals of rows that have become durable since the last call."""
        if self._file is None:
            if not self._path.exists():
                return []
            self._file = TransactionLog(self._path)
        ordinals = list(self._file.ordinals())
        if ordinals:
            self._file.sync()
            self._last_durable = ordinals[-1]
        return ordinals

    def describe(self, config: dict[str, Any], summary: dict[str, Any]) -> None:
        """Set its config and summary, beside what they have."""
        _describe(self._run, config, summary)

    def finish(self, end: RunEnd = NO_END) -> Iterable[int]:
        """Finish it with its end, and return what has become durable."""
        _finish(self._run, end)
        ordinals: list[int] = []
        deadline = time.monotonic() + 1
        try:
            # wandb reports the end some milliseconds before the last row is in the file.
            while True:
                ordinals += self.durable()
                if self._last_durable >= self._last_written or time.monotonic() > deadline:
                    return ordinals
                time.sleep(0.005)
        finally:
            if self._file is not None:
                self._file.close()


class OnlineRun:
    """A run whose rows are durable when the server has them.

    Args:
        run_id: The run.
        state_dir: The directory with wandb's files, in a folder `wandb`.
        project: The wandb project.
        ask: Threads that ask the server, so that a slow one does not hold up the caller.
        wandb_id: Its id in wandb, where it is not derived from `run_id`, which is its name then.
        finish_seconds: Seconds that its finish may take.

    Raises:
        WandbKeyError: The server refuses the key, or there is none.
    """

    def __init__(
        self,
        run_id: str,
        state_dir: Path,
        project: str,
        ask: ThreadPoolExecutor,
        *,
        wandb_id: str = "",
        finish_seconds: float = FINISH_SECONDS,
    ) -> None:
        self._ask = ask
        api = _api()
        # wandb drops a smaller step: the server has it.
        name = display_name(run_id)
        self._run = _init(
            wandb_id or safe_id(run_id), name, state_dir, project, mode="online", finish_seconds=finish_seconds
        )
        self.starting_ordinal = self._confirmed = int(self._run.starting_step)
        self._written = self.starting_ordinal
        self._remote = api.run(self._run.path)
        lines = getattr(self._remote, "historyLineCount", None)
        self.missing = max(0, self.starting_ordinal - int(lines)) if lines is not None else 0
        """Rows before `starting_ordinal` that the server lacks."""
        self._answer: Future[int] | None = None
        self._asked = time.monotonic()

    def write(self, sealed: SealedRow) -> None:
        """Write a row."""
        _write(self._run, sealed)
        self._written = sealed.ordinal + 1

    def durable(self) -> Iterable[int]:
        """Return the ordinals of rows that have become durable since the last call."""
        if self._answer is None:
            if self._written > self._confirmed and time.monotonic() - self._asked > POLL_SECONDS:
                self._asked = time.monotonic()
                self._answer = self._ask.submit(self._next_on_server)
            return []
        if not self._answer.done():
            return []
        answer, self._answer = self._answer, None
        return self._up_to(answer.result()) if answer.exception() is None else []

    def describe(self, config: dict[str, Any], summary: dict[str, Any]) -> None:
        """Set its config and summary, beside what they have."""
        _describe(self._run, config, summary)

    def finish(self, end: RunEnd = NO_END) -> Iterable[int]:
        """Finish it with its end, and return what has become durable."""
        _finish(self._run, end)
        return self.taken() if self._written > self._confirmed else []

    def taken(self) -> Iterable[int]:
        """Ask the server what has become durable since the last call."""
        return self._up_to(self._next_on_server())

    def _next_on_server(self) -> int:
        last = self._remote.lastHistoryStep  # each access is a request to the server
        return 0 if last is None else int(last) + 1

    def _up_to(self, ordinal: int) -> Iterable[int]:
        before, self._confirmed = self._confirmed, max(self._confirmed, ordinal)
        return range(before, self._confirmed)


def stored(state_dir: Path, run_id: str, since: int) -> Iterator[int]:
    """Yield the ordinals from `since` on of the rows in a run's files, which nobody writes to any more.

    A damaged file is read up to the damage: no reader gets what is after it, so it is to be written again.
    """
    for path in reversed(wandb_files(state_dir, run_id)):
        try:
            with TransactionLog(path) as log:
                yield from (ordinal for ordinal in log.ordinals() if ordinal >= since)
                log.sync()
        except WandbFileError as error:
            logger.warning("%s", error)


class LastRow(NamedTuple):
    """The last row of a run that its server has in the run's summary, as far as it tells."""

    ordinal: int | None
    """wandb's `_step`; an open that wrote nothing has taken it away."""
    timestamp: float | None
    """wandb's `_timestamp`."""


def last_row(project: str, wandb_id: str) -> LastRow | None:
    """Ask the server for the last row of a run that is not open; None where it has no such run, or does not say.

    Raises:
        WandbKeyError: The server refuses the key, or there is none.
        BridgeError: The server does not answer.
    """
    import wandb  # noqa: PLC0415  # as above

    api = _api()
    try:
        summary = api.run(f"{project}/{wandb_id}").summary_metrics
    except (ValueError, wandb.errors.CommError):
        return None
    ordinal, timestamp = summary.get("_step"), summary.get("_timestamp")
    return LastRow(
        ordinal if isinstance(ordinal, int) else None, timestamp if isinstance(timestamp, int | float) else None
    )


def _api() -> Any:
    """Return wandb's client of the server, once the server has answered and accepted the key.

    Called before a run is created: after one that could not be created its id is taken in this process.

    Raises:
        WandbKeyError: The server refuses the key, or there is none.
        BridgeError: The server does not answer.
    """
    import wandb  # noqa: PLC0415  # it takes most of a second, and a reader of the inbox needs none of it

    try:
        return wandb.Api(timeout=int(API_SECONDS))
    except wandb.errors.UsageError as error:
        raise WandbKeyError(str(error)) from error
    except wandb.errors.CommError as error:
        # wandb has one class for a refusal and a server that does not answer.
        if _REFUSED.search(str(error)):
            raise WandbKeyError(str(error)) from error
        raise BridgeError(f"the wandb server does not answer: {error}") from error


def _init(
    wandb_id: str,
    name: str,
    state_dir: Path,
    project: str,
    *,
    mode: Literal["online", "offline"],
    finish_seconds: float = FINISH_SECONDS,
) -> Any:
    import wandb  # noqa: PLC0415  # as above

    run = wandb.init(
        dir=str(state_dir),
        id=wandb_id,
        name=name,
        project=project,
        mode=mode,
        reinit="create_new",
        # Without it an online run of that id would start again; offline there is no server to resume from.
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(
            silent=True,
            console="off",
            save_code=False,
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            finish_timeout=finish_seconds,
            finish_timeout_raises=True,
            init_timeout=INIT_SECONDS,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_file_stream_transmit_interval=POLL_SECONDS,
            x_save_requirements=False,
            x_transaction_log_flush_interval=FLUSH_SECONDS,
            # By default "stop" in wandb's page would interrupt this process, which serves other runs too.
            stop_fn=lambda: logger.warning("wandb asks to stop run %r; its job goes on", name),
        ),
    )
    if not Path(run.settings.sync_file).resolve().is_relative_to((state_dir / WANDB_FOLDER).resolve()):
        raise BridgeError(f"wandb can't write in {state_dir}: it took {run.settings.sync_file}")
    run.define_metric(STEP_KEY)
    run.define_metric("*", step_metric=STEP_KEY)
    return run


def _describe(run: Any, config: dict[str, Any], summary: dict[str, Any]) -> None:
    if config:
        run.config.update(config, allow_val_change=True)
    if summary:
        run.summary.update(summary)


def _finish(run: Any, end: RunEnd) -> None:
    _describe(run, {}, end.summary)
    if end.is_preempted:
        run.mark_preempting()
    run.finish(end.exit_code)


def _write(run: Any, sealed: SealedRow) -> None:
    """Log a row under the time at which the step was measured."""
    run.log({**sealed.row, "_timestamp": sealed.time_ns / 1e9}, step=sealed.ordinal, commit=True)
