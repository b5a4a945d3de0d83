"""The memory-mapped step log between a rank and its node's sidecar."""

from otel_train.ring.layout import MAX_RECORDS, Cursor, Kind, Record
from otel_train.ring.process import is_alive, is_stopped, start_time
from otel_train.ring.reader import Progress, RingReader, ring_files
from otel_train.ring.schema import MAX_ATTRIBUTES, Fact, Identity, Schema
from otel_train.ring.serving import LOCK_NAME, ask_for_turn, is_served, turn_is_asked_for, withdraw
from otel_train.ring.writer import RingWriter, make_ring, prepare_directory, ring_path

__all__ = [
    "LOCK_NAME",
    "MAX_ATTRIBUTES",
    "MAX_RECORDS",
    "Cursor",
    "Fact",
    "Identity",
    "Kind",
    "Progress",
    "Record",
    "RingReader",
    "RingWriter",
    "Schema",
    "ask_for_turn",
    "is_alive",
    "is_served",
    "is_stopped",
    "make_ring",
    "prepare_directory",
    "ring_files",
    "ring_path",
    "start_time",
    "turn_is_asked_for",
    "withdraw",
]
