"""Upload the rows of a bridge's offline runs to a wandb server, each once, however often it is called.

`wandb sync` marks a run's folder as done, also one that is still written, and never reads it again; rows that it
sends twice are there twice. Here the server's last row tells what it has: each row's ordinal is its `_step`.
"""

from __future__ import annotations

import fcntl
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from otel_train.bridge.errors import BridgeError, WandbFileError
from otel_train.bridge.inbox import LOCK_FILE, SealedRow
from otel_train.bridge.wandb_environment import neutral
from otel_train.bridge.wandb_file import SUFFIX, WANDB_FOLDER, HistoryRow, TransactionLog, history_row
from otel_train.bridge.wandb_processes import is_written
from otel_train.bridge.wandb_runs import OnlineRun
from otel_train.paths import absolute

SYNCED_SUFFIX = ".synced"
"""Suffix that wandb appends to the name of a file to mark it as uploaded."""
FINISH_SECONDS = 600.0
"""Seconds that the server may take for the rows of a run."""
CONFIRM_SECONDS = 30.0
"""Seconds that the server may take to confirm that it has them."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of an offline run: the rows that one bridge wrote, from opening the run until finishing it."""

    path: Path
    run_id: str
    """Id of the run in wandb."""
    name: str
    project: str
    rows: tuple[HistoryRow, ...]
    finished: bool
    """Whether wandb recorded the run's end in it."""
    exit_code: int = 0
    """Exit code that was recorded there: not 0 for a job that failed."""

    @property
    def marker(self) -> Path:
        """File that marks it as uploaded."""
        return self.path.with_name(self.path.name + SYNCED_SUFFIX)


def read_segment(path: Path) -> Segment | None:
    """Read a file; None for one that has no run yet.

    A damaged one is read up to the damage: no reader gets what is after it, and the bridge writes that again.
    """
    run_id = name = project = ""
    finished, exit_code = False, 0
    rows: list[HistoryRow] = []
    try:
        with TransactionLog(path) as log:
            for record in log.records():
                match record.WhichOneof("record_type"):
                    case "run":
                        run_id, name, project = record.run.run_id, record.run.display_name, record.run.project
                    case "history":
                        rows.append(history_row(record.history))
                    case "exit":
                        finished, exit_code = True, record.exit.exit_code
    except (WandbFileError, ValueError):
        finished = False
    return Segment(path, run_id, name, project, tuple(rows), finished, exit_code) if run_id else None


def closed_segments(state_dir: Path) -> tuple[dict[str, list[Segment]], int]:
    """Return the files that are not uploaded and that nobody writes to any more, by run, and how many are left open.

    A file is closed when wandb recorded the end of its run there; one whose writer was killed, when no bridge has the
    state directory, or when its run goes on in a later file.

    Raises:
        BridgeError: There is no such state directory.
    """
    folder = state_dir / WANDB_FOLDER
    if not folder.is_dir():
        raise BridgeError(f"{state_dir} holds no {WANDB_FOLDER} folder; give the bridge's --state directory")
    running = _bridge_runs(state_dir)
    segments = [
        segment
        for path in sorted(folder.glob(f"offline-run-*/run-*{SUFFIX}"))
        if not path.with_name(path.name + SYNCED_SUFFIX).exists()
        if (segment := read_segment(path)) is not None
    ]
    newest: dict[str, int] = {}
    for segment in segments:
        if segment.rows:
            newest[segment.run_id] = max(newest.get(segment.run_id, 0), segment.rows[-1].ordinal)
    closed: dict[str, list[Segment]] = {}
    for segment in segments:
        superseded = bool(segment.rows) and segment.rows[-1].ordinal < newest[segment.run_id]
        if segment.finished or not running or (superseded and not is_written(segment.path)):
            closed.setdefault(segment.run_id, []).append(segment)
    return closed, len(segments) - sum(map(len, closed.values()))


def _bridge_runs(state_dir: Path) -> bool:
    try:
        with (state_dir / LOCK_FILE).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released when the file is closed, at once
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def upload(state_dir: Path, project: str, tell: Callable[[str], None], *, dry_run: bool = False) -> None:
    """Upload the closed files of a bridge's offline runs.

    Args:
        state_dir: The bridge's state directory; a bridge may run on it.
        project: The wandb project; empty for the one that each run has.
        tell: Called with a line for each run.
        dry_run: Whether nothing is uploaded.

    Raises:
        BridgeError: The server does not answer, refuses the key, or does not take the rows; what it has stays there,
            and the next call goes on from it.
    """
    state_dir = absolute(state_dir)
    closed, left = closed_segments(state_dir)
    for run_id, segments in closed.items():
        rows = list(_unique_rows(segments))
        of = f"run {segments[0].name or run_id}: {len(rows)} rows in {len(segments)} files"
        if dry_run:
            tell(f"{of} would be uploaded")
            continue
        fresh = _upload_run(segments, project, rows) if rows else 0
        for segment in segments:
            segment.marker.touch()
        tell(f"{of}, {fresh} of them new to the server")
    if left:
        tell(f"{left} files are still written; they are uploaded by a later call, when their runs are finished")
    if not closed and not left:
        tell("everything is uploaded")


def _unique_rows(segments: list[Segment]) -> Iterator[HistoryRow]:
    """Yield the rows of a run's files in order, each once: a bridge writes those again that were not durable."""
    rows = {row.ordinal: row for segment in segments for row in segment.rows}
    for ordinal in sorted(rows):
        yield rows[ordinal]


def _upload_run(segments: list[Segment], project: str, rows: list[HistoryRow]) -> int:
    """Upload those of a run's rows that the server lacks, and return how many they were."""
    # A folder of its own: in the bridge's, the rows would be there twice.
    with tempfile.TemporaryDirectory() as name, neutral(), ThreadPoolExecutor(1) as ask:
        folder = Path(name)
        (folder / WANDB_FOLDER).mkdir()
        segment = segments[0]
        run = OnlineRun(
            segment.name or segment.run_id,
            folder,
            project or segment.project,
            ask,
            wandb_id=segment.run_id,
            finish_seconds=FINISH_SECONDS,
        )
        begin = run.starting_ordinal
        if run.missing and rows[0].ordinal < begin:
            run.finish()
            files = " ".join(str(segment.path.parent) for segment in segments)
            raise BridgeError(
                f"the server has later rows of run {segments[0].run_id} and lacks {run.missing} before them, which "
                f"only wandb itself can add: upload the files once with: wandb sync {files}"
            )
        fresh = [row for row in rows if row.ordinal >= begin]
        for row in fresh:
            run.write(SealedRow(row.ordinal, round(row.timestamp * 1e9), row.values))
        taken = [*run.finish(max(segments, key=lambda one: one.rows[-1].ordinal if one.rows else -1).exit_code)]
        deadline = time.monotonic() + CONFIRM_SECONDS
        while len(taken) < len(fresh) and time.monotonic() < deadline:
            time.sleep(1)
            taken += run.taken()
        if len(taken) < len(fresh):
            raise BridgeError(
                f"the server has {len(taken)} of {len(fresh)} new rows of run {segment.run_id}; run sync again"
            )
    return len(fresh)
