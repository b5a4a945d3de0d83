"""Have a rank join its job: the process group, the identity, the directory of its ring, and the sidecar."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from otel_train.descriptors import standard_descriptors
from otel_train.exceptions import RingError
from otel_train.ring import Fact, Identity, prepare_directory
from otel_train.step.environment import Environment
from otel_train.step.identity_agreement import agree_identity, starts_sidecar
from otel_train.step.rank_group import GroupLike, RankGroup
from otel_train.step.sidecar_process import SidecarProcess

logger = logging.getLogger(__name__)


class Membership(NamedTuple):
    """Membership of a rank in its job."""

    group: RankGroup
    identity: Identity
    facts: Mapping[str, Fact]
    """Facts of its ring about the job."""
    ring_dir: Path | None
    """Directory of its ring; None where it can't have one."""
    sidecar: SidecarProcess | None
    """Process that this rank has started; None on a rank that starts none."""
    delivers: bool
    """Whether what is recorded is sent anywhere."""


class MembershipOptions(NamedTuple):
    """Arguments of `init` that the membership depends on."""

    environment: Environment
    process_group: GroupLike | None
    run_id: str
    """The user's; empty where none was given."""
    ring_dir: Path | None
    """The user's; None for a directory of the run's own."""
    rank_interval: float


def join_job(options: MembershipOptions, saved_run_id: str) -> Membership:
    """Make the process group, agree on the identity, and start the sidecar where this rank is to: a collective.

    Args:
        options: What `init` was given.
        saved_run_id: A checkpoint's, or empty.

    Raises:
        ConfigurationError: There are several ranks and no torch.distributed, or a rank's run id breaks a rule.
    """
    with standard_descriptors():  # of a process without them gloo's sockets would be what is printed to
        return _join_job(options, saved_run_id)


def _join_job(options: MembershipOptions, saved_run_id: str) -> Membership:
    environment, chosen = options.environment, options.ring_dir
    group = RankGroup.of(options.process_group, own=True)
    agreed = agree_identity(
        environment,
        group,
        options.run_id or saved_run_id,
        lambda run_id: chosen or (environment.ring_directory(run_id) if run_id else None),
        environment.run_directories() if chosen is None else [chosen],
    )
    if group.rank == 0 and group.handle is not None and not group.emits:
        logger.info(
            "telemetry: ranks %s reduce without rank 0 of the job, so that their cluster-wide values are not sent; "
            "they are in Telemetry.latest",
            list(group.job_ranks),
        )
    directory: Path | None = agreed.directory
    delivers = environment.external_sidecar or environment.endpoint.is_there
    sidecar: SidecarProcess | None = None
    try:
        if chosen is None:
            prepare_directory(agreed.directory.parent)  # whose owner could replace it by another directory
        prepare_directory(agreed.directory)
    except RingError as error:
        directory = None
        logger.warning("telemetry: nothing is recorded on this rank: %s", error)
    serves = starts_sidecar(agreed, group, environment.host) and directory is not None
    if serves and not delivers:
        from otel_train.ring import clean_beside  # noqa: PLC0415  # most jobs have a receiver

        with contextlib.suppress(Exception):  # what others have left takes nothing from this job
            clean_beside(agreed.directory)  # with a receiver the sidecar does
        # Whoever has set up no logging sees warnings alone; one rank tells the job.
        level = logging.WARNING if agreed.identity.rank == 0 else logging.INFO
        logger.log(
            level,
            "telemetry: no receiver is named and nothing listens at %s, so that nothing is sent; `otel-train top` "
            "shows this job. To send, set OTEL_EXPORTER_OTLP_ENDPOINT, also for a receiver that starts later",
            environment.endpoint,
        )
    elif serves and not environment.external_sidecar:
        sidecar = SidecarProcess(agreed.directory, options.rank_interval)
    return Membership(
        group=group,
        identity=agreed.identity,
        facts=agreed.facts | {"telemetry.delivers": delivers},
        ring_dir=directory,
        sidecar=sidecar,
        delivers=delivers,
    )
