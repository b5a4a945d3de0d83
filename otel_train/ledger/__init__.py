"""Keep a state tensor for each stream, sharded over the ranks, and measure what the ledger throws away.

`state_ledger` brings keys to their owner, whose `shard` (or `cache_meter`, for a cache of the user's own) counts into
`cache_interval`: all of `catalogue.ledger_rows` comes from `CacheInterval.drain`.
"""

from otel_train.import_errors import naming_extra as _naming_extra

with _naming_extra(__name__):
    from otel_train.event_sink import EventSink
    from otel_train.ledger.cache_meter import LedgerMeter
    from otel_train.ledger.shard import Fetched
    from otel_train.ledger.state_ledger import StateLedger
    from otel_train.stable_hash import stable_hash

__all__ = ["EventSink", "Fetched", "LedgerMeter", "StateLedger", "stable_hash"]
