"""Metrics of the state ledger: what it evicts, what it writes anew, and what it should have kept."""

from __future__ import annotations

from otel_train.catalogue.metric import HealthyRange, Instrument, Measure, Metric, Per, Reduction

REUSE_BOUNDS = tuple(float(2**power) for power in range(17))
"""Upper bounds of the reuse distance's buckets: 1, 2, 4 ... 65536 entries, and one bucket beyond."""
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
    (Measure("ledger.reuse_distance", size=len(REUSE_BOUNDS) + 2),),
    description="For a false eviction: how many more entries the owner would have had to hold for a hit.",
    bounds=REUSE_BOUNDS,
)
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
"""Metrics that a ledger source measures, in the order of its measurements."""
