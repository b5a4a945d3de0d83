"""Metrics of the training session and of the way from its ranks to the receiver."""

from __future__ import annotations

from otel_train.catalogue.metric import Instrument, Measure, Metric, Reduction

STEP_DURATION = Metric(
    "train.step.duration",
    Reduction.MEAN,
    Instrument.GAUGE,
    "s",
    (Measure("train.step.seconds"), Measure("train.step.count")),
    description="Mean duration of a step in the interval.",
    wandb_key="train/step_duration",
)
DATA_WAIT = Metric(
    "train.data.wait",
    Reduction.MEAN,
    Instrument.GAUGE,
    "s",
    (Measure("train.data.wait_seconds"), Measure("train.step.count")),
    description="Mean time in the interval that a step waited for its batch.",
    wandb_key="train/data_wait",
)
RANKS = Metric(
    "train.ranks",
    Reduction.SUM,
    Instrument.GAUGE,
    "{rank}",
    (Measure("train.ranks"),),
    description="Ranks whose values the cluster-wide ones are made of; 1 for a rank's own.",
    wandb_key="train/ranks",
)
VALUES_DROPPED = Metric(
    "telemetry.values.dropped",
    Reduction.SUM,
    Instrument.COUNTER,
    "{value}",
    (Measure("telemetry.values.dropped"),),
    description="Values of scalars and sources that were dropped: not a number, not a count, or a key that came late.",
    wandb_key="telemetry/values_dropped",
    remedy="Look at the log of the rank that has them: it names each of them once, and why.",
)
TIMING: tuple[Metric, ...] = (STEP_DURATION, DATA_WAIT, RANKS, VALUES_DROPPED)
"""Metrics that the session itself measures."""
STEP = Metric(
    "train.step",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "{step}",
    description="The step that the data points with the same time stamp belong to.",
    wandb_key="train/step",
)
STEP_AGE = Metric(
    "train.step.age",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "s",
    description="Time since the rank ended its last step, and the phase of its training thread: data, ledger, "
    "reduction, compute.",
    attribute="phase",
    remedy="Run `otel-train doctor` on the named rank's node: it names what the rank waits for.",
)
RECORDS_DROPPED = Metric(
    "telemetry.records.dropped",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{record}",
    description="Records that were overwritten in the ring before the sidecar had read them, or were torn.",
    remedy="Look at the sidecar's log: its receiver is down or too slow for the ring's size.",
)
POINTS_REFUSED = Metric(
    "telemetry.points.refused",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{point}",
    description="Points that the receiver refused for good, by reason; the sidecar drops them and goes on with the "
    "others.",
    attribute="error.type",
    remedy="Read the reason in the sidecar's log: it names the receiver's answer and the metrics.",
)
EXPORT_LAG = Metric(
    "telemetry.export.lag",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "s",
    description="Age of the oldest record of a batch when the sidecar sends it.",
)
REDUCTIONS_ABANDONED = Metric(
    "telemetry.reductions.abandoned",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{reduction}",
    description="Reductions whose result was thrown away: ranks out of step, a failed or late collective.",
    remedy="Look for a rank that died, hangs or skips steps; raise log_every where steps are very short.",
)
SIDECAR_RESTARTS = Metric(
    "telemetry.sidecar.restarts",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{restart}",
    description="Restarts of the rank's sidecar in this attempt, each after an unexpected end.",
    remedy="Look at the sidecar's log and at `dmesg`: it crashes, or is killed, most likely for lack of memory.",
)
SESSION_FAILED = Metric(
    "telemetry.session.failed",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "{code}",
    description="Exit code of a rank whose session has ended: 0 for a good end, N for SystemExit(N), 128 + N for "
    "signal N, 137 for a process that died without a word, else 1.",
    remedy="Run `otel-train doctor` on the rank's node: it names how each rank ended.",
)
SETTING = Metric(
    "telemetry.setting",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "{setting}",
    description="1 for each setting of the job, with the attributes `setting` and `value`: the sizes, versions and "
    "configuration that wandb shows as a run's config. Rank 0's, as the cluster's.",
    attribute="setting",
)
CLOCK_OFFSET = Metric(
    "telemetry.clock.offset",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "s",
    description="Offset of the rank's wall clock as far as it is certain (0 within what it is exact to), positive "
    "where it is ahead: against the other ranks' at the first step (`ranks`), or, of a node's first rank, against the "
    "receiver's (`receiver`).",
    attribute="clock.reference",
    remedy="Set the clock of the named host: start chrony or systemd-timesyncd there.",
)
STEP_POINTS = Metric(
    "telemetry.step.points",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "{point}",
    description="Number of cluster-wide data points that the sidecar sends with this time stamp, this one included.",
)
STEP_ORDINAL = Metric(
    "telemetry.step.ordinal",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "{record}",
    description="Number of this record of the cluster's values in its attempt, from 1 on: a gap tells what is missing.",
)
PIPELINE: tuple[Metric, ...] = (
    STEP,
    STEP_AGE,
    RECORDS_DROPPED,
    POINTS_REFUSED,
    EXPORT_LAG,
    REDUCTIONS_ABANDONED,
    SIDECAR_RESTARTS,
    SESSION_FAILED,
    SETTING,
    CLOCK_OFFSET,
    STEP_POINTS,
    STEP_ORDINAL,
)
"""Metrics of the telemetry pipeline itself; none of them is reduced."""
