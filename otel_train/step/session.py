"""Begin a session: check what the user gives, and have the rank join its job as soon as there is one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_train.exceptions import ConfigurationError
from otel_train.paths import absolute
from otel_train.untraced import untraced

if TYPE_CHECKING:
    from otel_train.catalogue import Metric
    from otel_train.event_sink import EventSink
    from otel_train.step.declarations import Scalar
    from otel_train.step.rank_group import GroupLike
    from otel_train.step.source_protocols import Source
    from otel_train.step.telemetry import Telemetry

logger = logging.getLogger(__name__)

_OF_FIRST_STEP = ("otel_train.step.first_step", "otel_train.step.recording", "otel_train.step.reduction")
"""Modules that only a session that records needs."""


@untraced
def init(
    *,
    sources: Sequence[Source] = (),
    metrics: Sequence[Scalar | Metric] = (),
    process_group: GroupLike | None = None,
    run_id: str | None = None,
    ring_dir: str | Path | None = None,
    rank_interval: float = 10.0,
    log_every: int = 1,
    blocking: bool = False,
    max_in_flight: int = 4,
    reduction_timeout: float = 10.0,
    close_timeout: float = 2.0,
    ring_records: int | None = None,
    ring_bytes: int | None = None,
    events: EventSink | None = None,
    config: Any = None,
) -> Telemetry:
    """Begin telemetry on this rank; every rank of the group calls it.

    It may be called before `torch.distributed.init_process_group()`: the ranks then meet at the first step, which is
    where the run's id and the sidecar are made, and where it is an error when there are several ranks and no group.

    The environment says where the values go (the standard `OTEL_EXPORTER_OTLP_*`), and `OTEL_SDK_DISABLED=true` makes
    all of it cost nothing.

    Examples:
        >>> import otel_train
        >>> with otel_train.init(run_id="pilot", log_every=2) as telemetry:
        ...     for step in range(1, 5):
        ...         _ = telemetry.step(step, {"train/loss": 8.0 - step})
        ...     step, values = telemetry.latest
        >>> step, values["train/loss"]                         # the mean of steps 3 and 4
        (4, 4.5)

    Args:
        sources: What measures: a `StreamMixingDataset`, a `StateLedger`, meters, or anything with `metrics` and
            `drain_step_metrics()`.
        metrics: The user's scalars that are not means, or have a unit, or are given by source: `[Scalar("train/tokens",
            "sum"), Scalar("train/loss", by="modality")]`. A `Metric` does it too, and may be a counter.
        process_group: The ranks that values are reduced over, once each: the data-parallel group or a one-dimensional
            DeviceMesh; all ranks by default. The cluster-wide values go out from rank 0 of the job, so that peers
            which see the same data count once: a group without it has them in `Telemetry.latest` and a blocking `step`
            only, and says so in the log (INFO). Its ranks' own values go out like everybody's.
        run_id: The run's name, the same on all ranks; when None `OTEL_TRAIN_RUN_ID`, or that of the state that is
            loaded before the first step (see `Telemetry.load_state_dict`), or one that is made up for this launch and
            agreed on: torchrun's restarts are attempts of one run. It begins with torchrun's rendezvous id where that
            was set, and is that id where it is the Slurm job's, which a requeue goes on with.
        ring_dir: Where the rings are; `OTEL_TRAIN_RING_DIR`, or a directory in memory when None. It may be relative
            to the working directory, begin with `~` and hold links: what it means now it means to the end. It is made
            0700; one that is there must be this user's, and if it holds other files others must not be able to write
            in it.
        rank_interval: Seconds between two exports of a rank's own values; the cluster's go out at every log step.
        log_every: Steps in an interval: values are reduced and recorded at each step that is a multiple of it.
        blocking: Whether `Telemetry.step` waits for the cluster's values and returns them.
        max_in_flight: Unfinished reductions beyond which the training thread waits for the oldest.
        reduction_timeout: Seconds that a wait for a reduction takes at most.
        close_timeout: Seconds that `Telemetry.close` waits at most, for the reductions under way and for the sidecar
            together.
        ring_records: Records that a ring holds at most; when None `OTEL_TRAIN_RING_RECORDS`, or 4096.
        ring_bytes: Bytes that a ring takes at most; when None `OTEL_TRAIN_RING_BYTES`, or 16 MiB. The rings of all
            ranks of a machine take a quarter of what is free there at most.
        events: Takes a "drain" event at each log step, after those of the sources.
        config: The job's hyperparameters, which wandb shows as the run's config, beside sizes, versions and the git
            commit: a mapping, a dataclass or argparse's namespace, nested or not, of 384 values at most, each of
            512 characters. Lists, None and truth values stay what they are, other objects become text; rank 0's
            counts. Whoever may look at the run sees it: what is a secret by its name (`api_key`, `password`) is left
            out with a warning, others you must leave out.

    Returns:
        The session; also a context manager that closes it.

    Raises:
        ConfigurationError: An argument or a variable of the environment breaks a rule; the message names it.
    """
    # Loaded by the call: whoever has the name only, such as a DataLoader's worker that runs the script, needs none.
    from otel_train.step.environment import Environment  # noqa: PLC0415
    from otel_train.step.options import SessionOptions, checked_seconds  # noqa: PLC0415
    from otel_train.step.rank_group import group_exists  # noqa: PLC0415
    from otel_train.step.telemetry import Telemetry  # noqa: PLC0415
    from otel_train.step.user_config import config_facts  # noqa: PLC0415
    from otel_train.step.value_source import drain_of  # noqa: PLC0415

    environment = Environment.read()
    for source in sources:
        drain_of(source)
    options = SessionOptions(
        log_every=log_every,
        blocking=blocking,
        max_in_flight=max_in_flight,
        reduction_timeout=reduction_timeout,
        close_timeout=close_timeout,
        ring_records=environment.ring_records if ring_records is None else ring_records,
        ring_bytes=environment.ring_bytes if ring_bytes is None else ring_bytes,
    )
    rank_interval = checked_seconds("rank_interval", rank_interval)
    facts = config_facts(config, warns=environment.rank == 0)
    if environment.disabled:
        return Telemetry(sources=sources, metrics=metrics, options=options)
    if environment.unknown and environment.rank == 0:
        logger.warning("telemetry: %s", environment.unknown)
    if process_group is not None and not group_exists():
        raise ConfigurationError("process_group was given, but torch.distributed is not initialised")
    # From here on the session records. All that it needs is loaded now: its first step is in the training loop.
    from otel_train.step.membership import MembershipOptions, join_job  # noqa: PLC0415

    for module in _OF_FIRST_STEP:
        import_module(module)
    chosen = ring_dir or environment.ring_dir
    membership = MembershipOptions(
        environment=environment,
        process_group=process_group,
        run_id=run_id or environment.run_id,
        ring_dir=_ring_directory(chosen) if chosen else None,
        rank_interval=rank_interval,
    )
    telemetry = Telemetry(
        sources=sources,
        metrics=metrics,
        options=options,
        join=partial(join_job, membership),
        keep_run_id=bool(membership.run_id),
        events=events,
        facts={"telemetry.rank_interval": rank_interval, **facts},
    )
    if group_exists():
        try:
            telemetry.join()
        except BaseException:
            telemetry.close()
            raise
    return telemetry


def _ring_directory(chosen: str | Path) -> Path:
    """Return the directory that the user has chosen, so that it holds after the job changes its own."""
    try:
        return absolute(chosen)
    except (OSError, RuntimeError, ValueError) as error:  # no working directory; links in a circle; a null character
        raise ConfigurationError(
            f"ring_dir or OTEL_TRAIN_RING_DIR can't be found, got {str(chosen)!r:.300} ({error}); give an absolute path"
        ) from error
