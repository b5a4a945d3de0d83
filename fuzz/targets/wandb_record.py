"""A `.wandb` file of two records whose frames are right: the bytes as one, and a history of what they say.

The bytes are the items of the history, key and JSON in turn, with a NUL after each.
"""

from __future__ import annotations

import struct
import zlib
from importlib import import_module
from typing import Any

from fuzz.targets import wandb_file
from otel_train.bridge.wandb_file import FILE_HEADER

_wandb_pb: Any = import_module("wandb.proto.wandb_internal_pb2")
_FULL = 1
_LONGEST = 16_000


def run(data: bytes) -> None:
    """Read files as wandb would have written them whole, so that each holds one record in its first block."""
    data = data[:_LONGEST]
    wandb_file.run(FILE_HEADER + _framed(data))
    wandb_file.run(FILE_HEADER + _framed(_history(data)))


def _framed(record: bytes) -> bytes:
    check = zlib.crc32(record, zlib.crc32(bytes([_FULL])))
    return struct.pack("<IHB", check, len(record), _FULL) + record


def _history(data: bytes) -> bytes:
    texts = data.decode(errors="replace")[:_LONGEST].split("\0")
    record = _wandb_pb.Record()
    for key, value in zip(texts[::2], texts[1::2], strict=False):
        record.history.item.add(key=key, value_json=value)
    history: bytes = record.SerializeToString()
    return history[:_LONGEST]
