"""Begin a session: read the environment, agree on the identity, start the sidecar."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_train.catalogue import Metric
from otel_train.exceptions import ConfigurationError, RingError
from otel_train.ring import prepare_directory
from otel_train.step.environment import Environment
from otel_train.step.group import GroupLike, RankGroup, agree_identity, starts_sidecar
from otel_train.step.options import SessionOptions, checked_seconds
from otel_train.step.sidecar import SidecarProcess
from otel_train.step.source import Source, drain_of
from otel_train.step.telemetry import Telemetry

if TYPE_CHECKING:  # a rank with a loader of its own need not load ours
    from otel_train.mixing import EventSink

logger = logging.getLogger(__name__)


def init(
    *,
    sources: Sequence[Source] = (),
    metrics: Sequence[Metric] = (),
    process_group: GroupLike | None = None,
    run_id: str | None = None,
    ring_dir: str | Path | None = None,
    rank_interval: float = 10.0,
    events: EventSink | None = None,
    **options: Any,
) -> Telemetry:
    """Begin telemetry on this rank; every rank of the group calls it.

    The environment says where the values go (the standard `OTEL_EXPORTER_OTLP_*`), and `OTEL_SDK_DISABLED=true` makes
    all of it cost nothing.

    Args:
        sources: What measures: a `StreamMixingDataset`, a `StateLedger`, meters, or anything with `metrics` and
            `drain_step_metrics()`.
        metrics: The user's scalars that are not means: `[Metric("train/tokens", reduction=Reduction.SUM)]`.
        process_group: The ranks that values are reduced over, once each: the data-parallel group or a one-dimensional
            DeviceMesh; all ranks by default. The cluster-wide values go out from rank 0 of the job, so that peers
            which see the same data count once: a group without it has them in `Telemetry.latest` and a blocking `step`
            only, and says so in the log (INFO). Its ranks' own values go out like everybody's.
        run_id: The run's name, the same on all ranks; when None `OTEL_TRAIN_RUN_ID`, or that of the state that is
            loaded before the first step (see `Telemetry.load_state_dict`), or torchrun's rendezvous id, or one that is
            made up and agreed on.
        ring_dir: Where the rings are; `OTEL_TRAIN_RING_DIR`, or a directory in memory when None. It is made 0700;
            one that is there must be this user's, and if it holds other files others must not be able to write in it.
        rank_interval: Seconds between two exports of a rank's own values; the cluster's go out at every log step.
        events: Takes a "drain" event at each log step, behind those of the sources.
        **options: Fields of `SessionOptions`: `log_every`, `blocking`, `max_in_flight`, `reduction_timeout`,
            `close_timeout`, `ring_records`.

    Returns:
        The session; also a context manager that closes it.

    Raises:
        ConfigurationError: An argument or a variable of the environment breaks a rule; the message names it.
    """
    environment = Environment.read()
    for source in sources:
        drain_of(source)
    options.setdefault("ring_records", environment.ring_records)
    try:
        session_options = SessionOptions(**options)
    except TypeError as error:
        raise ConfigurationError(f"init: {error}; known: {', '.join(SessionOptions.__slots__)}") from None
    rank_interval = checked_seconds("telemetry.rank_interval", rank_interval)
    if environment.disabled:
        return Telemetry(sources=sources, metrics=metrics, options=session_options)
    group = RankGroup.of(process_group, own=True)
    identity = agree_identity(environment, group, run_id)
    directory = Path(ring_dir) if ring_dir is not None else environment.ring_directory(identity.run_id)
    if group.rank == 0 and not group.emits:
        logger.info(
            "telemetry: ranks %s reduce without rank 0 of the job, so that their cluster-wide values are not sent; "
            "they are in Telemetry.latest",
            list(group.job_ranks),
        )
    serves = starts_sidecar(identity, group, directory) and not environment.external_sidecar
    sidecar: SidecarProcess | None = None
    usable = True
    try:
        if ring_dir is None and not environment.ring_dir:
            prepare_directory(directory.parent)  # whose owner could put another directory in its place
        prepare_directory(directory)
        if serves:
            sidecar = SidecarProcess(directory, rank_interval)
    except RingError as error:
        usable = False
        logger.warning("telemetry: nothing is recorded on this rank: %s", error)
    return Telemetry(
        sources=sources,
        metrics=metrics,
        options=session_options,
        group=group,
        identity=identity,
        keep_run_id=bool(run_id or environment.run_id),
        ring_dir=directory if usable else None,
        sidecar=sidecar,
        events=events,
        facts={"job.local_world_size": environment.local_world_size, "telemetry.rank_interval": rank_interval},
    )
