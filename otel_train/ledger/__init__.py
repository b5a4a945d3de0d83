"""Keep a state tensor for each stream, sharded over the ranks, and measure what the ledger throws away."""

from otel_train.event_sink import EventSink
from otel_train.ledger.cache_meter import LedgerMeter
from otel_train.ledger.hashing import stable_hash
from otel_train.ledger.shard import Fetched
from otel_train.ledger.state_ledger import StateLedger

__all__ = ["EventSink", "Fetched", "LedgerMeter", "StateLedger", "stable_hash"]
