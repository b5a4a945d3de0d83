"""Number the attempts of a job: each begins later than all that its ranks were part of, in this process or before.

And tell the run of the attempts before, where a launch has gone on with other nodes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import logging
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from otel_train.exceptions import RingError
from otel_train.log_once import OnceLogger
from otel_train.ring import Identity, ring_files
from otel_train.step.job_store import PATIENCE
from otel_train.step.rank_group import RankGroup

if TYPE_CHECKING:
    from otel_train.ring import RingReader

logger = logging.getLogger(__name__)

LAUNCH = "job.launch"
"""Fact of a ring: the launch that has named its run; absent where the user or a checkpoint did."""
_ATTEMPTS = {0}
"""Attempts that this process was part of, over all its sessions and process groups.

Their rings are not opened: closing one would end this process's lock on it.
"""


def note_attempt(attempt: int) -> None:
    """Note that this process is part of an attempt."""
    _ATTEMPTS.add(attempt)


def past_attempt(directory: Path | None, run_id: str) -> int:
    """Return the newest attempt that is over for this rank: its process's own, or one whose rings here have no writer.

    torchrun's store outlives the ranks that it starts again, and still names their last attempt.

    Args:
        directory: Where the rings of the run are; None where it is new.
        run_id: Of these rings; empty for any.
    """
    past = max(_ATTEMPTS)
    for attempt, path in _rings_of_others(directory):
        if attempt > past:
            with contextlib.suppress(RingError), contextlib.closing(_open(path)) as reader:
                if not reader.writer_lives and (not run_id or reader.identity.run_id == run_id):
                    past = attempt
    return past


def past_run(directories: Iterable[Path], launch: str) -> tuple[int, str]:
    """Return the newest attempt that left rings here and was part of a launch, and its run; 0 and empty without one.

    A launch on several nodes goes on when one of them is lost, which may be the one whose agent has named the run, with
    the store that held its name. Those that are left know it.

    Args:
        directories: Where the rings of this machine are.
        launch: This rank's; empty where no launcher names the run.
    """
    past = 0, ""
    for attempt, path in itertools.chain.from_iterable(map(_rings_of_others, directories)) if launch else ():
        if attempt > past[0]:
            with contextlib.suppress(RingError), contextlib.closing(_open(path)) as reader:
                if reader.facts.get(LAUNCH) == launch:
                    past = attempt, reader.identity.run_id
    return past


def warn_of_other_jobs(directory: Path | None, identity: Identity, warnings: OnceLogger) -> None:
    """Log it where another job writes the same run on this machine: of two that begin at once the second one sees it.

    Called when this rank's own ring is there.
    """
    for attempt, path in _rings_of_others(directory):
        with contextlib.suppress(RingError), contextlib.closing(_open(path)) as reader:
            if reader.identity.run_id == identity.run_id and reader.writer_lives and not reader.progress.closed:
                warnings.warn(
                    "same run",
                    "telemetry: another job writes run %r too (rank %d of attempt %d, process %d, in %s): their rows "
                    "will be mixed. Give each job a run id of its own, by OTEL_TRAIN_RUN_ID or init(run_id=)",
                    identity.run_id,
                    reader.identity.rank,
                    attempt,
                    reader.header.pid,
                    directory,
                )
                return


def _open(path: Path) -> RingReader:
    """Return a reader of a ring; a rank reads one only where others have left theirs."""
    from otel_train.ring import RingReader  # noqa: PLC0415  # for that alone

    return RingReader(path)


def _rings_of_others(directory: Path | None) -> Iterator[tuple[int, Path]]:
    """Yield attempt and ring of the rings in a directory that this process has no part in."""
    with contextlib.suppress(OSError):
        for path in ring_files(directory) if directory is not None else ():
            attempt = path.stem.rpartition("-")[2]
            if attempt.isascii() and attempt.isdigit() and int(attempt) not in _ATTEMPTS:
                yield int(attempt), path


def begin_attempt(last: int, group: RankGroup, run_id: str = "", *, waits: bool = False) -> tuple[str, int]:
    """Return a run id and an attempt newer than `last`: those of another group of the job, else new ones.

    Groups agree through the job's store, since only the ranks of a group meet here: it holds a list of attempts, each
    newer than the one before, and a group takes the first one that is newer than all that its ranks were part of. So
    the groups along a mesh's dimension share one, and no rank gets the same one twice.

    Args:
        last: The newest that a rank of the group was part of.
        group: The ranks.
        run_id: The run's; made up when empty.
        waits: Whether to wait a little for the group of the job's first rank, which knows the run's name.
    """
    own = run_id or uuid.uuid4().hex[:12], max(time.time_ns() // 1_000_000, last + 1)
    store = job_store(group)
    if store is None:
        return own
    try:
        for index in itertools.count():
            waits = waits and _await_key(store, str(index))
            made_id, attempt = json.loads(store.compare_set(f"otel_train/{index}", "", json.dumps(own)))
            if attempt > last:
                return made_id, attempt
    except Exception as error:  # noqa: BLE001  # a store may lack compare_set; what it raises differs by its kind
        logger.debug("telemetry: the store knows no attempts: %r", error)
    return own


def first_value(group: RankGroup, key: str, value: str, *, waits: bool = False) -> str:
    """Return the value that was set first under a key, by any rank of the job; the own one where that can't be read.

    Args:
        group: The ranks.
        key: Names the value.
        value: This rank's.
        waits: Whether to wait a little for another rank's.
    """
    store = job_store(group)
    if store is None or not value:
        return value
    if waits:
        _await_key(store, key)
    try:
        return bytes(store.compare_set(f"otel_train/{key}", "", value)).decode()
    except Exception as error:  # noqa: BLE001  # as above
        logger.debug("telemetry: the store does not know %s: %r", key, error)
        return value


def _await_key(store: Any, key: str) -> bool:
    """Wait until a rank has set a key, and tell whether one has within the bound."""
    try:
        store.wait([f"otel_train/{key}"], dt.timedelta(seconds=PATIENCE))
    except Exception as error:  # noqa: BLE001  # as above
        logger.debug("telemetry: nobody has set %s in the store: %r", key, error)
        return False
    return True


def job_store(group: RankGroup) -> Any:
    """Return what all ranks of the job share, or None where this one is alone."""
    return None if group.handle is None else dist.distributed_c10d._get_default_store()  # noqa: SLF001
