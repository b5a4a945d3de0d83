"""Metrics of the mix: which streams are picked, how often, and how near the mix is to its targets.

"Age" of a reader is the number of steps since it was last picked.
"""

from __future__ import annotations

from otel_train.catalogue.metric import HealthyRange, Instrument, Measure, Metric, Per, Reduction, Statistic
from otel_train.catalogue.repeat_sketch import WIDTH

# Measures that several rows share stand first.
PICK_COUNT = Measure("stream_mixing.picks")
ACTIVE_COUNT = Measure("stream_mixing.active_readers")
AGE_SUM = Measure("stream_mixing.age_sum")
AGE_MAX = Measure("stream_mixing.staleness_max")
SWITCH_COUNT = Measure("stream_mixing.switches")
PAIR_COUNT = Measure("stream_mixing.pairs")
DECAYED_COUNTS = Measure("stream_mixing.decayed_counts", per_modality=True)
DECAYED_TARGETS = Measure("stream_mixing.decayed_targets", per_modality=True)
ORDER_COUNT = Measure("stream_mixing.orders")
ORDER_SIGNS = Measure("stream_mixing.order_signs", size=4)

PICKS = Metric(
    "stream_mixing.picks",
    Reduction.SUM,
    Instrument.COUNTER,
    "{pick}",
    (PICK_COUNT,),
    description="Picks made: the mixer chose a reader for one row of a batch.",
    wandb_key="stream_mixing/picks",
    healthy=HealthyRange(low=1.0, per=Per.RANK),
    remedy="Check that each rank's loader yields rows, and that the training process counts them: picks in a worker's "
    "copy of a meter are lost.",
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
    remedy="Find the slot that is never picked on the named rank and fix its weight or its stream.",
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
    healthy=HealthyRange(high=0.01, statistic=Statistic.LAST),
    remedy="Compare the modality shares with their targets and give the missing modality slots, streams or weight.",
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
    description="Active readers whose age their weight does not explain (probability below 1e-6).",
    wandb_key="stream_mixing/starved_readers",
    remedy="Compare the weight that is configured for the reader with the one that the mixer uses.",
)
ALIKE_RANKS = Metric(
    "stream_mixing.alike_ranks",
    Reduction.ALIKE,
    Instrument.GAUGE,
    "{rank}",
    (ORDER_COUNT, ORDER_SIGNS),
    description="Ranks that draw in one order, of which a rank is one: an estimate, right on average over steps.",
    wandb_key="stream_mixing/alike_ranks",
    remedy="Give each rank's mixer its rank or a seed of its own; ranks that share their data on purpose may be alike.",
)
REPEATS = Metric(
    "stream_mixing.repeats",
    Reduction.REPEATS,
    Instrument.GAUGE,
    "1",
    (
        Measure("stream_mixing.sample_keys"),
        Measure("stream_mixing.sample_repeats"),
        Measure("stream_mixing.sample_sketch", size=WIDTH),
    ),
    description="Part of the newest rows of all ranks whose sample is among them more than once, in the same pass.",
    wandb_key="stream_mixing/repeats",
    healthy=HealthyRange(high=0.05),
    remedy="Seed or shard the data by rank and by worker: several of them read the same samples.",
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
    ALIKE_RANKS,
)
"""Metrics that a mixing source measures, in the order of its measurements."""
SAMPLES: tuple[Metric, ...] = (REPEATS,)
"""Metrics that a mixing source measures where its rows carry sample keys, in the order of its measurements."""
