"""Every metric of otel_train, one row each: all else (packing, export, dashboards, docs) follows from these.

The meaning of each number is in the row's description; "interval" is the steps since the last log step, "age" of a
reader is the number of steps since it was last picked.
"""

from __future__ import annotations

from otel_train.catalogue.metric import HealthyRange, Instrument, Measure, Metric, Per, Reduction, Statistic

# What a rank measures and several rows share.
PICK_COUNT = Measure("stream_mixing.picks")
ACTIVE_COUNT = Measure("stream_mixing.active_readers")
AGE_SUM = Measure("stream_mixing.age_sum")
AGE_MAX = Measure("stream_mixing.staleness_max")
SWITCH_COUNT = Measure("stream_mixing.switches")
PAIR_COUNT = Measure("stream_mixing.pairs")
DECAYED_COUNTS = Measure("stream_mixing.decayed_counts", per_modality=True)
DECAYED_TARGETS = Measure("stream_mixing.decayed_targets", per_modality=True)

REUSE_BOUNDS = tuple(float(2**power) for power in range(17))
"""Upper bounds of the reuse distance's buckets: 1, 2, 4 ... 65536 entries, and one bucket beyond."""

PICKS = Metric(
    "stream_mixing.picks",
    Reduction.SUM,
    Instrument.COUNTER,
    "{pick}",
    (PICK_COUNT,),
    description="Picks made: the mixer chose a reader for one row of a batch.",
    wandb_key="stream_mixing/picks",
    healthy=HealthyRange(low=1.0, per=Per.RANK),
    remedy="Check that every rank's loader yields batches: a rank without picks trains on nothing.",
)
ACTIVE_READERS = Metric(
    "stream_mixing.active_readers",
    Reduction.SUM,
    Instrument.GAUGE,
    "{reader}",
    (ACTIVE_COUNT,),
    description="Slots that hold a stream with data left, at the drain.",
    wandb_key="stream_mixing/active_readers",
    healthy=HealthyRange(low=2.0, per=Per.RANK, statistic=Statistic.LAST),
    remedy="Give the ranks more streams, or let streams begin again at their end, so that no slot stays empty.",
)
RESTARTS = Metric(
    "stream_mixing.restarts",
    Reduction.SUM,
    Instrument.COUNTER,
    "{restart}",
    (Measure("stream_mixing.restarts"),),
    description="Streams that ran out and whose slot took another one, or began again.",
    wandb_key="stream_mixing/restarts",
    healthy=HealthyRange(high=0.1, per=Per.PICK),
    remedy="Use longer streams or give the slots to more modalities: the data is being gone through too fast.",
)
STALENESS_MEAN = Metric(
    "stream_mixing.staleness_mean",
    Reduction.MEAN,
    Instrument.GAUGE,
    "{step}",
    (AGE_SUM, ACTIVE_COUNT),
    description="Mean age of the active readers: steps since each was last picked.",
    wandb_key="stream_mixing/staleness_mean",
    healthy=HealthyRange(high=4.0, statistic=Statistic.MAX),
    remedy="Raise the weight of the modality whose readers wait, or lower the number of slots it holds.",
)
STALENESS_MAX = Metric(
    "stream_mixing.staleness_max",
    Reduction.MAX,
    Instrument.GAUGE,
    "{step}",
    (AGE_MAX,),
    description="The largest age of an active reader, and the rank that has it.",
    wandb_key="stream_mixing/staleness_max",
    healthy=HealthyRange(high=16.0, statistic=Statistic.MAX),
    remedy="Find the slot that is never picked on the named rank and mend its weight or its stream.",
)
SWITCH_RATE = Metric(
    "stream_mixing.switch_rate",
    Reduction.MEAN,
    Instrument.GAUGE,
    "1",
    (SWITCH_COUNT, PAIR_COUNT),
    description="Part of the picks whose modality differs from that of the pick before.",
    wandb_key="stream_mixing/switch_rate",
    healthy=HealthyRange(low=0.2, high=0.95),
    remedy="Check weights and slots: below the range one modality comes in runs, above it the order is not random.",
)
MIX_DIVERGENCE = Metric(
    "stream_mixing.mix_divergence",
    Reduction.DIVERGENCE,
    Instrument.GAUGE,
    "1",
    (DECAYED_COUNTS, DECAYED_TARGETS),
    description="Jensen-Shannon divergence (base 2) of the realised modality shares against the target shares.",
    wandb_key="stream_mixing/mix_divergence",
    healthy=HealthyRange(high=0.05, statistic=Statistic.LAST),
    remedy="Compare the modality shares with their targets and give the missing modality slots, streams or weight.",
)
EVICTIONS = Metric(
    "ledger.evictions",
    Reduction.SUM,
    Instrument.COUNTER,
    "{entry}",
    (Measure("ledger.evictions"),),
    description="Entries that the LRU rule dropped because the shard was full.",
    wandb_key="ledger/evictions",
    with_max=True,
    healthy=HealthyRange(high=0.05, per=Per.PICK),
    remedy="Raise ledger.capacity towards the number of streams that are live on the owner.",
)
STALE_EVICTIONS = Metric(
    "ledger.stale_evictions",
    Reduction.SUM,
    Instrument.COUNTER,
    "{entry}",
    (Measure("ledger.stale_evictions"),),
    description="Entries dropped because they sat unused longer than max_idle_steps.",
    wandb_key="ledger/stale_evictions",
    with_max=True,
    healthy=HealthyRange(high=0.1, per=Per.PICK),
    remedy="Raise ledger.max_idle_steps above the longest age that the mix explains.",
)
FRESH_WRITES = Metric(
    "ledger.fresh_writes",
    Reduction.SUM,
    Instrument.COUNTER,
    "{entry}",
    (Measure("ledger.fresh_writes"),),
    description="Stores of a key that its owner does not hold.",
    wandb_key="ledger/fresh_writes",
    with_max=True,
    healthy=HealthyRange(high=0.9, per=Per.PICK, worst=False),
    remedy="Check that stream ids are stable between steps: nearly every store makes a new entry.",
)
FALSE_EVICTIONS = Metric(
    "ledger.false_evictions",
    Reduction.SUM,
    Instrument.COUNTER,
    "{entry}",
    (Measure("ledger.false_evictions"),),
    description="Fresh writes of a key that was evicted a short while ago: state that was needed again.",
    wandb_key="ledger/false_evictions",
    with_max=True,
    healthy=HealthyRange(high=0.01, per=Per.PICK),
    remedy="Raise ledger.capacity (or max_idle_steps) on the named rank: it drops state that is needed again.",
)

MODALITY_SHARE = Metric(
    "stream_mixing.modality.share",
    Reduction.SHARE,
    Instrument.GAUGE,
    "1",
    (DECAYED_COUNTS,),
    description="Realised share of the picks, over the horizon of the divergence.",
    wandb_key="stream_mixing/modality_share",
    attribute="modality",
)
MODALITY_TARGET = Metric(
    "stream_mixing.modality.target",
    Reduction.SHARE,
    Instrument.GAUGE,
    "1",
    (DECAYED_TARGETS,),
    description="Target share of the picks, over the horizon of the divergence.",
    wandb_key="stream_mixing/modality_target",
    attribute="modality",
)
TOKENS = Metric(
    "stream_mixing.tokens",
    Reduction.SUM,
    Instrument.COUNTER,
    "{token}",
    (Measure("stream_mixing.tokens", per_modality=True),),
    description="Tokens in the rows that were picked: the mix by tokens.",
    wandb_key="stream_mixing/tokens",
    attribute="modality",
)
STARVED_READERS = Metric(
    "stream_mixing.starved_readers",
    Reduction.SUM,
    Instrument.GAUGE,
    "{reader}",
    (Measure("stream_mixing.starved_readers"),),
    description="Active readers whose age their weight does not explain (probability under 1e-6).",
    wandb_key="stream_mixing/starved_readers",
    remedy="Compare the weight that is configured for the reader with the one that the mixer uses.",
)
LEDGER_ENTRIES = Metric(
    "ledger.entries",
    Reduction.SUM,
    Instrument.GAUGE,
    "{entry}",
    (Measure("ledger.entries"),),
    description="Entries that the shard holds, at the drain.",
    wandb_key="ledger/entries",
)
LEDGER_CAPACITY = Metric(
    "ledger.capacity",
    Reduction.SUM,
    Instrument.GAUGE,
    "{entry}",
    (Measure("ledger.capacity"),),
    description="Entries that the shard can hold.",
    wandb_key="ledger/capacity",
)
LEDGER_HITS = Metric(
    "ledger.hits",
    Reduction.SUM,
    Instrument.COUNTER,
    "{entry}",
    (Measure("ledger.hits"),),
    description="Fetched keys that their owner held.",
    wandb_key="ledger/hits",
)
REUSE_DISTANCE = Metric(
    "ledger.reuse_distance",
    Reduction.HISTOGRAM,
    Instrument.HISTOGRAM,
    "{entry}",
    (Measure("ledger.reuse_distance", places=len(REUSE_BOUNDS) + 2),),
    description="For a false eviction: how many more entries the owner would have had to hold for a hit.",
    bounds=REUSE_BOUNDS,
)
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
    description="Time since the rank ended its last step, and what its training thread does: data, ledger, "
    "reduction, compute.",
    attribute="phase",
    remedy="Run `otel-train doctor` on the named rank's node: it says what the rank waits for.",
)
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
    description="Values of scalars and sources that were dropped: no number, no count, or a key that came late.",
    wandb_key="telemetry/values_dropped",
    remedy="Look at the log of the rank that has them: it names each of them once, and why.",
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
    description="Points that the receiver refused for good; the sidecar drops them and goes on with the others.",
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
    description="How often the rank's sidecar was started again in this attempt, after an end that nobody wanted.",
    remedy="Look at the sidecar's log and at `dmesg`: it is killed, most likely for want of memory, or it crashes.",
)
STEP_POINTS = Metric(
    "telemetry.step.points",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "{point}",
    description="How many cluster-wide data points the sidecar sends with this time stamp, this one included.",
)
STEP_ORDINAL = Metric(
    "telemetry.step.ordinal",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "{record}",
    description="Which record of the cluster's values in its attempt this is, the first is 1: tells what is missing.",
)

BRIDGE_ROWS = Metric(
    "bridge.rows",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{row}",
    description="Rows that wandb has durably, in its file or on its server, since the bridge began.",
)
BRIDGE_PARTIAL_ROWS = Metric(
    "bridge.rows.partial",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{row}",
    description="Rows that were made although some of their step's points had not come in time.",
    remedy="Look for a collector that splits a step's points or drops some of them.",
)
BRIDGE_WAITING = Metric(
    "bridge.steps.waiting",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "{step}",
    description="Steps that the bridge has points of and wandb has no row of.",
)
BRIDGE_LAG = Metric(
    "bridge.lag",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "s",
    description="How long the oldest step that waits in the bridge has been there; 0 when none waits.",
    remedy="Look at the bridge's log: wandb is down, slow, or refuses the key, or the disk is full.",
)
BRIDGE_DUPLICATES = Metric(
    "bridge.points.duplicates",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{point}",
    description="Points that the bridge had already and dropped: senders try again after an outage.",
)
BRIDGE_LATE_POINTS = Metric(
    "bridge.points.late",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{point}",
    description="Points that came after their step's row was made without them, which wandb lacks, or after a later "
    "step's row, which stand out of order there.",
    remedy="Raise the bridge's --settle above the longest delay between the points of one step, or of two steps.",
)
BRIDGE_REFUSED_POINTS = Metric(
    "bridge.points.refused",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{point}",
    description="Points that break a rule or are beyond a bound, which their sender was told and does not repeat.",
    remedy="Read the reason in the sender's log; --max-series bounds the series of a run.",
)
BRIDGE_REFUSED_REQUESTS = Metric(
    "bridge.requests.refused",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{request}",
    description="Requests that the bridge could not keep and asked to be sent again, or that are no OTLP.",
    remedy="Give the bridge's disk room or raise --max-bytes; look why wandb does not take the rows that wait.",
)

MIXING: tuple[Metric, ...] = (
    PICKS,
    ACTIVE_READERS,
    RESTARTS,
    STALENESS_MEAN,
    STALENESS_MAX,
    SWITCH_RATE,
    MIX_DIVERGENCE,
    MODALITY_SHARE,
    MODALITY_TARGET,
    TOKENS,
    STARVED_READERS,
)
"""What a mixing source measures, in the order of its measurements."""
LEDGER: tuple[Metric, ...] = (
    EVICTIONS,
    STALE_EVICTIONS,
    FRESH_WRITES,
    FALSE_EVICTIONS,
    LEDGER_ENTRIES,
    LEDGER_CAPACITY,
    LEDGER_HITS,
    REUSE_DISTANCE,
)
"""What a ledger source measures, in the order of its measurements."""
TIMING: tuple[Metric, ...] = (STEP_DURATION, DATA_WAIT, RANKS, VALUES_DROPPED)
"""What the session itself measures."""
PIPELINE: tuple[Metric, ...] = (
    STEP,
    STEP_AGE,
    RECORDS_DROPPED,
    POINTS_REFUSED,
    EXPORT_LAG,
    REDUCTIONS_ABANDONED,
    SIDECAR_RESTARTS,
    STEP_POINTS,
    STEP_ORDINAL,
)
"""What the pipeline says of itself; none of it is reduced."""
BRIDGE: tuple[Metric, ...] = (
    BRIDGE_ROWS,
    BRIDGE_PARTIAL_ROWS,
    BRIDGE_WAITING,
    BRIDGE_LAG,
    BRIDGE_DUPLICATES,
    BRIDGE_LATE_POINTS,
    BRIDGE_REFUSED_POINTS,
    BRIDGE_REFUSED_REQUESTS,
)
"""What the bridge says of itself; none of it is reduced."""
HEADLINE: tuple[Metric, ...] = MIXING[:7] + LEDGER[:4]
"""The eleven metrics that answer the 2 a.m. question."""
CATALOGUE: tuple[Metric, ...] = MIXING + LEDGER + TIMING + PIPELINE + BRIDGE
"""Every row."""
