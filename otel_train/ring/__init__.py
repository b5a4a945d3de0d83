"""The ring: a memory-mapped log of records between a rank and its node's sidecar."""

from typing import TYPE_CHECKING

from otel_train.lazy_names import lazy_names

if TYPE_CHECKING:
    from otel_train.ring.directory import default_base, default_bases, is_ours, prepare_directory, ring_files
    from otel_train.ring.facts import Fact
    from otel_train.ring.file_format import MAX_ATTRIBUTES, MAX_RECORDS, MOST_LATE_KEYS, Cursor, End, Kind, Record
    from otel_train.ring.file_system import IN_MEMORY, file_system_of, is_remote
    from otel_train.ring.late_keys import LateValue
    from otel_train.ring.reader import Progress, RingReader, Stamp
    from otel_train.ring.retention import KeptRun, clean_beside, look_at_run, remove_run
    from otel_train.ring.ring_size import RingSize, make_ring
    from otel_train.ring.schema import Identity, Schema
    from otel_train.ring.sidecar_lock import (
        LOCK_NAME,
        SidecarEnd,
        ask_for_turn,
        is_served,
        lock_holder,
        take_lock,
        turn_is_asked_for,
        withdraw,
    )
    from otel_train.ring.writable_pages import keep_writable
    from otel_train.ring.writer import RingWriter, ring_path
    from otel_train.ring.writer_process import boot_id, is_alive, parent_of, start_time
else:
    __getattr__, __dir__ = lazy_names(
        globals(),
        {
            "directory": "default_base default_bases is_ours prepare_directory ring_files",
            "facts": "Fact",
            "file_format": "MAX_ATTRIBUTES MAX_RECORDS MOST_LATE_KEYS Cursor End Kind Record",
            "file_system": "IN_MEMORY file_system_of is_remote",
            "late_keys": "LateValue",
            "reader": "Progress RingReader Stamp",
            "retention": "KeptRun clean_beside look_at_run remove_run",
            "ring_size": "RingSize make_ring",
            "schema": "Identity Schema",
            "sidecar_lock": "LOCK_NAME SidecarEnd ask_for_turn is_served lock_holder take_lock turn_is_asked_for "
            "withdraw",
            "writable_pages": "keep_writable",
            "writer": "RingWriter ring_path",
            "writer_process": "boot_id is_alive parent_of start_time",
        },
    )

__all__ = [
    "IN_MEMORY",
    "LOCK_NAME",
    "MAX_ATTRIBUTES",
    "MAX_RECORDS",
    "MOST_LATE_KEYS",
    "Cursor",
    "End",
    "Fact",
    "Identity",
    "KeptRun",
    "Kind",
    "LateValue",
    "Progress",
    "Record",
    "RingReader",
    "RingSize",
    "RingWriter",
    "Schema",
    "SidecarEnd",
    "Stamp",
    "ask_for_turn",
    "boot_id",
    "clean_beside",
    "default_base",
    "default_bases",
    "file_system_of",
    "is_alive",
    "is_ours",
    "is_remote",
    "is_served",
    "keep_writable",
    "lock_holder",
    "look_at_run",
    "make_ring",
    "parent_of",
    "prepare_directory",
    "remove_run",
    "ring_files",
    "ring_path",
    "start_time",
    "take_lock",
    "turn_is_asked_for",
    "withdraw",
]
