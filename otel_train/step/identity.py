"""Agree over the ranks on who they are: the run, the attempt, each one's place on its machine, and who serves it."""

from __future__ import annotations

import itertools
import json
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from otel_train.ring import Identity
from otel_train.step.environment import Environment
from otel_train.step.group import RankGroup, raise_problem
from otel_train.step.node import LocalPlace, NodeClaim, boot_id, local_places
from otel_train.step.resource import HOST_NAME, SERVICE_NAME

MAX_RUN_ID = 128

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What the ranks agreed on, as one of them sees it."""

    identity: Identity
    local_world_size: int
    """Ranks on this machine."""
    directory: Path
    """Where this rank's ring is."""
    serves: bool
    """Whether this rank starts the sidecar for that directory."""


def agree_identity(
    environment: Environment, group: RankGroup, run_id: str, directory_of: Callable[[str], Path]
) -> Agreed:
    """Agree on run id and attempt over the group, and on the attempt over all groups of the job that begin a session.

    A collective over the group.

    Args:
        environment: This rank's.
        group: The ranks.
        run_id: As the user or a checkpoint gives it, or empty; the first rank's word holds.
        directory_of: Returns the directory of this rank's ring by the run's id.

    Raises:
        ConfigurationError: Some rank's run id is too long or not printable; raised on all of them.
    """
    given = run_id or environment.rendezvous_id
    problem = ""
    if len(given) > MAX_RUN_ID or not given.isprintable():
        problem = f"run_id must be at most {MAX_RUN_ID} printable characters, got {given[: MAX_RUN_ID + 22]!r}"
    claim = NodeClaim(environment.host, boot_id(), environment.local_rank, environment.local_world_size)
    gathered = group.gather((problem, given, _last_attempt, claim))
    raise_problem([text for text, _, _, _ in gathered], group)
    newest = max(last for _, _, last, _ in gathered)
    made_id, attempt = group.gather(_begin_attempt(newest, group) if group.rank == 0 else None)[0]
    _note_attempt(attempt)
    place = local_places([NodeClaim(*claim) for _, _, _, claim in gathered])[group.rank]
    agreed_id = gathered[0][1] or made_id
    directory = directory_of(agreed_id)
    identity = Identity(
        run_id=agreed_id,
        attempt=attempt,
        rank=group.global_rank if group.distributed else environment.rank,
        local_rank=place.rank,
        world_size=dist.get_world_size() if group.distributed else environment.world_size,
        host=environment.attributes.get(HOST_NAME) or environment.host,
        service_name=environment.attributes.get(SERVICE_NAME) or "otel_train",
        attributes=dict(environment.attributes),
    )
    return Agreed(
        identity=identity,
        local_world_size=place.world_size,
        directory=directory,
        serves=_serves(place, identity, group, claim, directory),
    )


_last_attempt = 0
"""The newest attempt that this process was part of."""


def _note_attempt(attempt: int) -> None:
    global _last_attempt  # noqa: PLW0603  # attempts are the process's, over all its sessions and process groups
    _last_attempt = max(attempt, _last_attempt)


def _begin_attempt(last: int, group: RankGroup) -> tuple[str, int]:
    """Return a made-up run id and an attempt newer than `last`: those of another group of the job, else new ones.

    Groups agree through the job's store, since only the ranks of a group meet here: it holds a list of attempts, each
    newer than the one before, and a group takes the first one that is newer than all that its ranks were part of. So
    the groups along a mesh's dimension share one, and no rank gets the same one twice.
    """
    own = uuid.uuid4().hex[:12], max(time.time_ns() // 1_000_000, last + 1)
    store = _job_store(group)
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


def _job_store(group: RankGroup) -> Any:
    """Return what all ranks of the job share, or None where this one is alone."""
    return None if group.handle is None else dist.distributed_c10d._get_default_store()  # noqa: SLF001


def _serves(place: LocalPlace, identity: Identity, group: RankGroup, claim: NodeClaim, directory: Path) -> bool:
    """Tell whether this rank starts its machine's sidecar: the first one of the group for a directory there does.

    A collective. Of several groups whose first ranks there are not local rank 0, only one starts a sidecar.
    """
    own = [claim.host, claim.boot_id, str(directory)]
    if group.gather(own).index(own) != group.rank:
        return False
    store, key = _job_store(group), "/".join(["otel_train", str(identity.attempt), *own])
    try:
        first = store is None or int(store.compare_set(key, "", str(identity.rank))) == identity.rank
    except Exception:  # noqa: BLE001  # as above; one sidecar too many leaves by itself
        first = True
    return place.rank == 0 or first
