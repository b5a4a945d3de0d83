"""Upload the rows of a bridge's offline runs to a wandb server, each once, however often it is called.

`wandb sync` marks a run's folder as done, also one that is still written, and never reads it again; rows that it
sends twice are there twice. Here the server's last row tells what it has: each row's ordinal is its `_step`.
"""

from __future__ import annotations

import fcntl
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from otel_train.bridge.errors import BridgeError, WandbFileError
from otel_train.bridge.inbox import LOCK_FILE, SealedRow
from otel_train.bridge.inbox_store import INBOX_FILE
from otel_train.bridge.run_end import NO_END, RESERVED, RunEnd
from otel_train.bridge.wandb_environment import neutral
from otel_train.bridge.wandb_file import SUFFIX, WANDB_FOLDER, HistoryRow, TransactionLog, history_row
from otel_train.bridge.wandb_processes import is_written
from otel_train.bridge.wandb_runs import LastRow, OnlineRun, last_row
from otel_train.paths import absolute

SYNCED_SUFFIX = ".synced"
"""Suffix that wandb appends to the name of a file to mark it as uploaded."""
UPLOADED = b"by otel-train sync\n"
"""Content of such a mark that is made here. One of `wandb sync`, which is empty, may stand at a file that went on."""
BEGUN = b"begun by otel-train sync\n"
"""Content of the mark of a file while it is uploaded, and where that was interrupted."""
SAME_SECONDS = 0.0004
"""Two rows of a run are farther apart."""
UPLOAD_LOCK_FILE = "sync.lock"
"""File of the state directory that is locked while its files are uploaded."""
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
    end: RunEnd = NO_END
    """The end that was recorded there."""
    config: dict[str, Any] = field(default_factory=dict)
    """Config that was recorded there."""

    @property
    def marker(self) -> Path:
        """File that marks it as uploaded."""
        return _marker(self.path)


def _marker(path: Path) -> Path:
    return path.with_name(path.name + SYNCED_SUFFIX)


def _marker_content(path: Path) -> bytes:
    marker = _marker(path)
    return marker.read_bytes() if marker.exists() else b""


def read_segment(path: Path) -> Segment | None:
    """Read a file; None for one that has no run yet.

    A damaged one is read up to the damage: no reader gets what is after it, and the bridge writes that again.
    """
    run_id = name = project = ""
    finished, end = False, NO_END
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    rows: list[HistoryRow] = []
    try:
        with TransactionLog(path) as log:
            for record in log.records():
                match record.WhichOneof("record_type"):
                    case "run":
                        run_id, name, project = record.run.run_id, record.run.display_name, record.run.project
                    case "history":
                        rows.append(history_row(record.history))
                    case "config":
                        config |= _items(record.config)
                    case "summary":
                        summary |= {key: value for key, value in _items(record.summary).items() if key in RESERVED}
                    case "preempting":
                        end = end._replace(is_preempted=True)
                    case "exit":
                        finished, end = True, end._replace(exit_code=record.exit.exit_code)
    except (WandbFileError, ValueError):
        finished = False
    if not run_id:
        return None
    return Segment(path, run_id, name, project, tuple(rows), finished, end._replace(summary=summary), config)


def _items(update: Any) -> dict[str, Any]:
    """Return what wandb's record of a config or summary sets, by key of the top level; its own keys stay its own."""
    items = {(item.key or item.nested_key[0]): item for item in update.update if item.key or len(item.nested_key) == 1}
    return {key: json.loads(item.value_json) for key, item in items.items() if not key.startswith("_")}


def closed_segments(state_dir: Path) -> tuple[dict[str, list[Segment]], int]:
    """Return the files that are not uploaded and that nobody writes to any more, by run, and how many are left open.

    A file is closed when wandb recorded the end of its run there; one whose writer was killed, when no bridge has the
    state directory, or when its run goes on in a later file.

    Raises:
        BridgeError: There is no such state directory.
    """
    folder = state_dir / WANDB_FOLDER
    if not folder.is_dir():
        if (state_dir / INBOX_FILE).exists():  # a bridge's, which has had no run yet
            return {}, 0
        raise BridgeError(f"{state_dir} holds no {WANDB_FOLDER} folder; give the bridge's --state directory")
    running = _bridge_runs(state_dir)
    segments = [
        segment
        for path in sorted(folder.glob(f"offline-run-*/run-*{SUFFIX}"))
        if _marker_content(path) != UPLOADED
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


class _UntakenRunError(BridgeError):
    """The server does not take the rows of one run; those of others it may."""


def upload(state_dir: Path, project: str, tell: Callable[[str], None], *, dry_run: bool = False) -> None:
    """Upload the closed files of a bridge's offline runs.

    Args:
        state_dir: The bridge's state directory; a bridge may run on it.
        project: The wandb project; empty for the one that each run has.
        tell: Called with a line for each run.
        dry_run: Whether nothing is uploaded.

    Raises:
        BridgeError: The server does not answer, refuses the key, or does not take the rows; what it has stays there,
            and the next call goes on from it; or another call is at work.
    """
    state_dir = absolute(state_dir)
    untaken: list[str] = []
    with nullcontext() if dry_run else _only_upload(state_dir):
        closed, left = closed_segments(state_dir)
        for run_id, segments in closed.items():
            rows = list(_unique_rows(segments))
            of = f"run {segments[0].name or run_id}: {len(rows)} rows in {len(segments)} files"
            if dry_run:
                tell(f"{of} would be uploaded")
                continue
            try:
                fresh = _upload_run(segments, project, rows)
            except _UntakenRunError as error:
                untaken.append(str(error))
                continue
            except BridgeError:  # there is no server, or none that takes the key
                raise
            except Exception as error:  # noqa: BLE001  # wandb raises anything, of a run that was deleted there too
                name = segments[0].name or run_id
                untaken.append(f"wandb does not take run {name} ({type(error).__name__}: {error})")
                continue
            for segment in segments:
                segment.marker.write_bytes(UPLOADED)
            tell(f"{of}, {fresh} of them new to the server")
    if left:
        tell(f"{left} files are still written; they are uploaded by a later call, when their runs are finished")
    if not closed and not left:
        tell("everything is uploaded")
    if untaken:
        raise BridgeError("; ".join(untaken))


@contextmanager
def _only_upload(state_dir: Path) -> Iterator[None]:
    """Keep other uploads of a state directory out: of two at once, each would send rows that the other one sends.

    Raises:
        BridgeError: Another upload is at work.
        OSError: The directory can't be written to.
    """
    if not (state_dir / WANDB_FOLDER).is_dir():  # nothing is sent, and it may be anybody's directory
        yield
        return
    with (state_dir / UPLOAD_LOCK_FILE).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            why = f"another sync uploads the files of {state_dir}; call it again when that has ended"
            raise BridgeError(why) from None
        yield


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
        last = last_row(project or segment.project, segment.run_id)
        run = OnlineRun(
            segment.name or segment.run_id,
            folder,
            project or segment.project,
            ask,
            wandb_id=segment.run_id,
            finish_seconds=FINISH_SECONDS,
        )
        begin = run.starting_ordinal
        if run.missing and rows and rows[0].ordinal < begin:
            run.finish()
            files = " ".join(str(segment.path.parent) for segment in segments)
            raise _UntakenRunError(
                f"the server has later rows of run {segments[0].run_id} and lacks {run.missing} before them, which "
                f"only wandb itself can add: upload the files once with: wandb sync {files}"
            )
        try:
            fresh, is_appended = _fresh_rows(run.starting_ordinal, last, segments, rows)
        except _UntakenRunError:
            run.finish()
            raise
        run.describe({key: value for segment in segments for key, value in segment.config.items()}, {})
        for segment in segments:
            segment.marker.write_bytes(BEGUN)
        for index, row in enumerate(fresh):
            ordinal = begin + index if is_appended else row.ordinal
            run.write(SealedRow(ordinal, round(row.timestamp * 1e9), row.values))
        taken = [*run.finish(segments[-1].end)]
        deadline = time.monotonic() + CONFIRM_SECONDS
        while len(taken) < len(fresh) and time.monotonic() < deadline:
            time.sleep(1)
            taken += run.taken()
        if len(taken) < len(fresh):
            raise _UntakenRunError(
                f"the server has {len(taken)} of {len(fresh)} new rows of run {segment.run_id}; run sync again"
            )
    return len(fresh)


def _fresh_rows(
    begin: int, last: LastRow | None, segments: list[Segment], rows: list[HistoryRow]
) -> tuple[list[HistoryRow], bool]:
    """Return the rows that the server lacks, and whether they get ordinals of their own, after those that it has.

    Its rows are not always of this folder: another attempt may have had another bridge, whose ordinals begin at 0 too.
    Which they are tells the time of the last one.

    Raises:
        _UntakenRunError: That does not tell how many of this folder's rows the server has.
    """
    lacking = [row for row in rows if row.ordinal >= begin]
    if last is None and begin > 0:
        raise _UntakenRunError(f"the server does not tell what it has of run {segments[0].run_id}; run sync again")
    if last is None or last.timestamp is None or not rows or rows[0].ordinal >= begin:
        return lacking, False
    path = segments[0].path
    files = sorted(path.parent.parent.glob(f"*run-*/{path.name}"))  # those that are uploaded too
    ours = (row for file in files if (segment := read_segment(file)) is not None for row in segment.rows)
    same = {row.ordinal for row in ours if abs(row.timestamp - last.timestamp) < SAME_SECONDS}
    there = begin - 1 if last.ordinal is None else last.ordinal
    if there in same:
        return lacking, False
    if (last.ordinal is None or not same) and any(_marker_content(segment.path) == BEGUN for segment in segments):
        raise _UntakenRunError(
            f"an earlier sync of run {segments[0].run_id} was interrupted, and the server has rows from elsewhere; "
            f"look how far it is there: to upload all rows of this folder, delete {segments[0].marker}"
        )
    since = begin - there + max(same) if same else 0
    return [row for row in rows if row.ordinal >= since], True
