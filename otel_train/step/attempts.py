"""Number the attempts of a job: each begins later than all that its ranks were part of, in this process or before."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import time
import uuid
from pathlib import Path
from typing import Any

import torch.distributed as dist

from otel_train.exceptions import RingError
from otel_train.ring import RingReader, ring_files
from otel_train.step.group import RankGroup

logger = logging.getLogger(__name__)

_last_attempt = 0
"""The newest attempt that this process was part of."""


def note_attempt(attempt: int) -> None:
    """Note that this process is part of an attempt."""
    global _last_attempt  # noqa: PLW0603  # attempts are the process's, over all its sessions and process groups
    _last_attempt = max(attempt, _last_attempt)


def past_attempt(directory: Path | None, run_id: str) -> int:
    """Return the newest attempt that is over for this rank: its process's own, or one whose rings here nobody writes.

    torchrun's store outlives the ranks that it starts again, and still names their last attempt.

    Args:
        directory: Where the rings of the run are; None where it is new.
        run_id: Of these rings; empty for any.
    """
    past = _last_attempt
    with contextlib.suppress(OSError):
        for path in ring_files(directory) if directory is not None else ():
            attempt = path.stem.rpartition("-")[2]
            if attempt.isascii() and attempt.isdigit() and int(attempt) > past and _is_over(path, run_id):
                past = int(attempt)
    return past


def _is_over(path: Path, run_id: str) -> bool:
    """Tell whether a ring belongs to the run and the process that wrote it has ended."""
    try:
        with contextlib.closing(RingReader(path)) as reader:
            return not reader.writer_lives and (not run_id or reader.identity.run_id == run_id)
    except RingError:
        return False


def begin_attempt(last: int, group: RankGroup) -> tuple[str, int]:
    """Return a made-up run id and an attempt newer than `last`: those of another group of the job, else new ones.

    Groups agree through the job's store, since only the ranks of a group meet here: it holds a list of attempts, each
    newer than the one before, and a group takes the first one that is newer than all that its ranks were part of. So
    the groups along a mesh's dimension share one, and no rank gets the same one twice.
    """
    own = uuid.uuid4().hex[:12], max(time.time_ns() // 1_000_000, last + 1)
    store = job_store(group)
    if store is None:
        return own
    try:
        for index in itertools.count():
            made_id, attempt = json.loads(store.compare_set(f"otel_train/{index}", "", json.dumps(own)))
            if attempt > last:
                return made_id, attempt
    except Exception as error:  # noqa: BLE001  # a store may lack compare_set; what it raises differs by its kind
        logger.debug("telemetry: the store knows no attempts: %r", error)
    return own


def first_word(group: RankGroup, key: str, value: str) -> str:
    """Return what the first rank of the job to say something under a key has said; what it can't learn is its own."""
    store = job_store(group)
    if store is None or not value:
        return value
    try:
        return bytes(store.compare_set(f"otel_train/{key}", "", value)).decode()
    except Exception as error:  # noqa: BLE001  # as above
        logger.debug("telemetry: the store does not know %s: %r", key, error)
        return value


def job_store(group: RankGroup) -> Any:
    """Return what all ranks of the job share, or None where this one is alone."""
    return None if group.handle is None else dist.distributed_c10d._get_default_store()  # noqa: SLF001
