"""Jobs of one rank in this process, with real rings."""

from __future__ import annotations

import json
import random
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import otel_train
from otel_train.bridge.wandb_file import BLOCK_BYTES, FILE_HEADER
from otel_train.ledger import LedgerMeter
from otel_train.mixing import MixingMeter

Train = Callable[..., None]

FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
"""Types of a chunk in a transaction log."""
CHUNK_HEAD = 7


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Train:
    """Return what runs a job of 8 picks a step, and leaves its rings."""
    return make_train(monkeypatch)


def make_train(monkeypatch: pytest.MonkeyPatch) -> Train:
    """Return the fixture's function, for a fixture of another scope."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)

    def run(
        rings: Path, steps: int = 30, *, code: float = 0.5, streams: int = 4, records: int = 4096, pause: float = 0
    ) -> None:
        rng = random.Random(1)
        mixer = MixingMeter(4, ("code", "prose"), {"code": 1, "prose": 1})
        for slot in range(4):
            mixer.open(slot, ("code", "prose")[slot % 2])
        cache, held = LedgerMeter(4, recently_evicted=64), dict[int, None]()
        with otel_train.init(
            sources=[mixer, cache], run_id="run-1", ring_dir=rings, ring_records=records, close_timeout=0.01
        ) as telemetry:
            for step in range(1, steps + 1):
                for _ in range(8):
                    mixer.pick(2 * rng.randrange(2) + (rng.random() >= code))
                    key = rng.randrange(streams)
                    held.pop(key, None)
                    held[key] = None
                    cache.store(key)
                    if len(held) > 4:
                        oldest = next(iter(held))
                        del held[oldest]
                        cache.evict(oldest)
                time.sleep(pause)
                telemetry.step(step, {"train/loss": 1.0})

    return run


def add_record(data: bytearray, record: bytes) -> None:
    """Add a record in as many chunks as its blocks need."""
    kinds = iter(((FIRST, FULL), *[(MIDDLE, LAST)] * len(record)))
    while record:
        room = BLOCK_BYTES - len(data) % BLOCK_BYTES - CHUNK_HEAD
        if room <= 0:
            data += bytes(room + CHUNK_HEAD)
            continue
        part, record = record[:room], record[room:]
        kind = bytes([next(kinds)[not record]])
        data += zlib.crc32(kind + part).to_bytes(4, "little") + len(part).to_bytes(2, "little") + kind + part


def write_wandb_file(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a transaction log, as wandb does."""
    messages: Any = import_module("wandb.proto.wandb_internal_pb2")
    data = bytearray(FILE_HEADER)
    for ordinal, row in enumerate(rows):
        record = messages.Record()
        for key, value in {"_step": ordinal, "_timestamp": 1e9 + ordinal, **row}.items():
            record.history.item.add(key=key, value_json=json.dumps(value))
        add_record(data, record.SerializeToString())
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
