"""Keep a state tensor for each stream, sharded over the ranks, and measure what the ledger throws away."""

from otel_train.ledger.hashing import stable_hash
from otel_train.ledger.ledger import StateLedger
from otel_train.ledger.meter import LedgerMeter
from otel_train.ledger.shard import Fetched
from otel_train.ledger.source import EventSink

__all__ = ["EventSink", "Fetched", "LedgerMeter", "StateLedger", "stable_hash"]
