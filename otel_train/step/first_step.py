"""Make what a session needs from its first step on: the schema that all ranks agree on, and the ring."""

from __future__ import annotations

import contextlib
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from otel_train import __version__
from otel_train.catalogue import BY_SOURCE, CONFIG_PREFIX, Instrument, Metric, Reduction
from otel_train.exceptions import ConfigurationError, RingError
from otel_train.log_once import OnceLogger
from otel_train.native import IMPLEMENTATION
from otel_train.ring import (
    IN_MEMORY,
    Fact,
    Identity,
    RingSize,
    RingWriter,
    Schema,
    file_system_of,
    is_remote,
    keep_writable,
    make_ring,
    ring_path,
)
from otel_train.step.attempts import warn_of_other_jobs
from otel_train.step.dtensors import natural_reduction
from otel_train.step.git_commit import git_facts
from otel_train.step.late_scalars import TOO_MANY
from otel_train.step.options import SessionOptions
from otel_train.step.per_row import PerRow
from otel_train.step.rank_group import RankGroup
from otel_train.step.recorder import Recorder
from otel_train.step.schema_agreement import agree_schema
from otel_train.step.source_protocols import Source, facts_of, watch_source
from otel_train.step.user_metrics import check_names, check_row, check_user_key
from otel_train.step.value_source import Dropped

logger = logging.getLogger(__name__)

_SHARED = ("log_every", "blocking", "max_in_flight", "reduction_timeout", "close_timeout")
_SHARED_FACTS = ("telemetry.rank_interval",)


def agree_recorder(
    sources: Sequence[Source],
    declared: Mapping[str, Metric],
    scalars: Mapping[str, Any],
    group: RankGroup,
    *,
    options: Mapping[str, Fact],
    dropped: Dropped,
    modalities: Sequence[str] = (),
) -> Recorder:
    """Return the recorder of the sources and the first step's scalars, those of any rank, on which all ranks agree.

    Args:
        sources: The sources.
        declared: The user's metrics by name.
        scalars: This rank's at the first step: its keys count, whatever the values are.
        group: The ranks; every one of them calls this.
        options: What must be the same on all ranks; see `shared_options`.
        dropped: Called for each value that is dropped.
        modalities: The job's, where no source has any.

    Raises:
        SchemaMismatchError: The ranks do not measure the same things.
        ConfigurationError: A key or a source breaks a rule, on this rank or another, or the ranks' options differ.
    """
    try:
        metrics = _first_metrics(declared, scalars, modalities)
        recorder = _make_recorder(sources, metrics, dropped, ranks=group.job_ranks, modalities=modalities)
    except Exception as error:
        # Whatever a user's source raises, too: the other ranks must not wait for this one.
        agree_schema(None, group, str(error) if isinstance(error, ConfigurationError) else f"sources: {error!r:.400}")
        raise  # not reached: agreeing on a problem raises it on every rank
    rows = agree_schema(recorder.schema, group, options=options, scalars=len(metrics))
    if len(rows) == len(metrics):
        return recorder
    own = {metric.name: metric for metric in metrics}
    every = [own.get(row[0]) or _metric_of(*row) for row in rows]
    return _make_recorder(sources, every, dropped, ranks=group.job_ranks, modalities=modalities)


def _metric_of(name: str, unit: str, instrument: str, reduction: str, attribute: str = "") -> Metric:
    return Metric(name, Reduction(reduction), Instrument(instrument), unit=unit, attribute=attribute)


def shared_options(options: SessionOptions, facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """Return the options that decide which steps are reduced, and when, so that all ranks must have the same.

    The size of a ring is not among them: a node may have less memory than others.
    """
    shared: dict[str, Fact] = {f"telemetry.{name}": getattr(options, name) for name in _SHARED}
    return shared | {name: facts[name] for name in _SHARED_FACTS if name in facts}


def _first_metrics(
    declared: Mapping[str, Metric], scalars: Mapping[str, Any], modalities: Sequence[str]
) -> list[Metric]:
    """Return the metrics that are declared, and those of the first step's scalars, by name."""
    if not isinstance(scalars, Mapping):
        raise ConfigurationError(f"extra_metrics must be a mapping of numbers by key, got {scalars!r:.80}")
    for key in scalars:
        check_user_key(key)
    metrics = [declared.get(key) or Metric(key) for key in sorted(declared.keys() | scalars.keys())]
    return [_natural_row(metric, scalars.get(metric.name), modalities) for metric in metrics]


def _make_recorder(
    sources: Sequence[Source],
    metrics: Sequence[Metric],
    dropped: Dropped,
    *,
    ranks: Sequence[int],
    modalities: Sequence[str],
) -> Recorder:
    recorder = Recorder(sources, metrics, dropped, ranks=ranks, modalities=modalities)
    for metric in recorder.schema.metrics:
        check_row(metric)
    check_names(recorder.schema.metrics, recorder.schema.modalities)
    return recorder


def _natural_row(metric: Metric, value: Any, modalities: Sequence[str]) -> Metric:
    """Return a scalar's row as its first value has it: a norm of which each rank has a part, or a mean by source."""
    if isinstance(value, PerRow) and modalities and metric == Metric(metric.name):
        return replace(metric, attribute=BY_SOURCE)
    return replace(metric, reduction=natural_reduction(value, metric.reduction))


def open_ring(
    directory: Path | None,
    identity: Identity,
    schema: Schema,
    *,
    options: SessionOptions,
    facts: Mapping[str, Fact],
    warnings: OnceLogger,
) -> RingWriter | None:
    """Return this rank's ring, or None where it can't be made: that is logged, and training goes on."""
    if directory is None:
        return None
    records, most, sharers = options.ring_records, options.ring_bytes, facts.get("job.local_world_size")
    size = RingSize(records=records, max_bytes=most, sharers=sharers if isinstance(sharers, int) else 1)
    try:
        ring = make_ring(ring_path(directory, identity), schema, identity, size=size, facts=facts)
    except RingError as error:
        warnings.warn("ring", "telemetry: nothing is recorded on this rank: %s", error)
        return None
    kind = _file_system(directory)
    if kind not in IN_MEMORY:
        keep_writable(ring)
    if identity.local_rank == 0:
        warn_of_other_jobs(directory, identity, warnings)
        if is_remote(kind):
            warnings.warn(
                "remote rings",
                "telemetry: the rings in %s are on a file system of another machine (%s): steps wait when it does, and "
                "what a rank has recorded may be lost with it. Set OTEL_TRAIN_RING_DIR to a directory in memory or on "
                "a disk of this node",
                directory,
                kind,
            )
    geometry = ring.geometry
    if geometry.records < records:
        # The bytes that a ring takes by default need no warning.
        expected = records == RingSize().records and geometry.file_size + geometry.record_size > most
        logger.log(
            logging.INFO if expected else logging.WARNING,
            "telemetry: the ring in %s holds %d records instead of %d, so that the receiver may be away for less long: "
            "it takes at most %d bytes, and those of all ranks here a quarter of what is free. Set "
            "OTEL_TRAIN_RING_DIR, OTEL_TRAIN_RING_BYTES or OTEL_TRAIN_RING_RECORDS, or make room: `otel-train clean`",
            directory,
            geometry.records,
            records,
            most,
        )
    return ring


def _file_system(directory: Path) -> str:
    with contextlib.suppress(OSError):
        return file_system_of(directory)
    return ""


def warn_of_dropped(warnings: OnceLogger, name: str, reason: str) -> None:
    """Warn of a value that is dropped, once for its key, or once for all where there are too many keys."""
    cause = reason if reason is TOO_MANY else f"value {name!r}"
    warnings.warn(cause, "telemetry: %r is dropped: it %s", name, reason)


def watch_phases(sources: Sequence[Source], ring: RingWriter) -> None:
    """Have the sources note in the ring what they wait for."""
    for source in sources:
        watch_source(source, ring.enter)


def session_facts(
    sources: Sequence[Source], options: SessionOptions, facts: Mapping[str, Fact], identity: Identity
) -> dict[str, Fact]:
    """Return how the job is set up, for people who look at the ring, and for wandb.

    Args:
        sources: What measures.
        options: The session's.
        facts: What else is known of the job.
        identity: This rank's; the first one speaks for the job.
    """
    is_first = identity.rank == 0 or identity.world_size == 1
    named = {f"telemetry.{name}": getattr(options, name) for name in ("log_every", "blocking")}
    versions = {"torch": str(torch.__version__), "python": platform.python_version(), "otel_train": __version__}
    every: dict[str, Fact] = {**named, "telemetry.core": IMPLEMENTATION, **versions}
    every |= git_facts() if is_first else {}
    every |= {name: value for name, value in facts.items() if is_first or not name.startswith(CONFIG_PREFIX)}
    for source in sources:
        try:
            every |= facts_of(source)
        except Exception as error:  # noqa: BLE001  # they are for people: nothing else may depend on them
            every[f"{type(source).__name__}.facts"] = f"can't be read ({error!r:.200})"
    return every
