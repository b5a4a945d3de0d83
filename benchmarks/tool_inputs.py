"""Make what the reading tools are measured on: rings and wandb files of runs of up to a million log steps.

python -m benchmarks.tool_inputs FOLDER --steps 1000000 [--ranks 1] [--wandb]

Rings are written by the product's own writer; each rank draws from three sources by their weights, and its records
say so as the meters' would, with decayed counts and all. wandb files have the records and the framing of those that
wandb-core writes for the bridge, keys in a random order as there: the bridge itself would take half an hour for them.
"""

from __future__ import annotations

import argparse
import math
import random
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from otel_train.bridge.wandb_file import BLOCK_BYTES, FILE_HEADER, WANDB_FOLDER
from otel_train.catalogue import LEDGER, MIXING, TIMING, Layout, Metric, rows
from otel_train.ring import Identity, Kind, RingWriter, Schema, ring_path

MODALITIES, WEIGHTS = ("code", "prose", "speech"), (0.5, 0.3, 0.2)
SCHEMA = Schema((*MIXING, *LEDGER, *TIMING, Metric("train/loss"), Metric("train/lr")), MODALITIES)
RUN_ID = "long"
PICKS = 64
"""Picks of a rank in an interval."""
HORIZON = 4096.0
INTERVAL_NS = 1_000_000_000
POOL = 4096
"""Intervals that are made; a run has them again and again."""
_FACTS = {"mixing.horizon": HORIZON, "telemetry.log_every": 1, "ledger.capacity": 4096}
_CHUNK = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class Values:
    """Values of one rank's records, interval by interval.

    Args:
        seed: Another one gives other draws.
    """

    def __init__(self, seed: int) -> None:
        self.layout: Layout = SCHEMA.layout()
        numbers = random.Random(seed)
        self._pool = [self._interval(numbers) for _ in range(POOL)]
        self._keep = math.exp(-PICKS / HORIZON)
        counted, aimed = (self.layout.offsets[measure.name] for measure in rows.MIX_DIVERGENCE.measures)
        self._counts, self._targets = (slice(start, start + len(MODALITIES)) for start in (counted, aimed))
        self._decayed, self._aims = [0.0] * len(MODALITIES), [0.0] * len(MODALITIES)
        self._loss = self.layout.offsets["train/loss:total"]

    def _interval(self, numbers: random.Random) -> tuple[list[float], list[float]]:
        """Return an interval's values, and its picks of each source."""
        layout = self.layout
        sums = [float(numbers.randrange(8)) for _ in range(layout.sums)]
        drawn = numbers.choices(range(len(MODALITIES)), WEIGHTS, k=PICKS)
        fixed = {
            rows.PICKS: PICKS,
            rows.STEP_DURATION: numbers.uniform(0.9, 1.1),
            rows.DATA_WAIT: numbers.uniform(0.0, 0.1),
            rows.RANKS: 1,
            rows.VALUES_DROPPED: 0,
            rows.STARVED_READERS: 0,
            rows.ACTIVE_READERS: 8,
            rows.LEDGER_CAPACITY: 4096,
        }
        for row, value in fixed.items():
            sums[layout.offsets[row.measures[0].name]] = value
        for count in ("train.step.count", "train/loss:count", "train/lr:count"):
            sums[layout.offsets[count]] = 1.0
        sums[layout.offsets[rows.PAIR_COUNT.name]] = PICKS
        sums[layout.offsets[rows.ORDER_COUNT.name]] = 1.0
        signs = layout.offsets[rows.ORDER_SIGNS.name]
        sums[signs : signs + rows.ORDER_SIGNS.size] = [
            numbers.choice((-1.0, 1.0)) for _ in range(rows.ORDER_SIGNS.size)
        ]
        peaks = layout.complete_peaks(sums, [float(numbers.randrange(8)) for _ in layout.given_peaks])
        picks = [float(drawn.count(index)) for index in range(len(MODALITIES))]
        return [*sums, *peaks, *[0.0] * layout.peaks], picks

    def at(self, step: int) -> list[float]:
        """Return the values of a step, which follow those of the step before."""
        values, picks = self._pool[step * 2_654_435_761 % POOL]
        self._decayed = [count * self._keep + pick for count, pick in zip(self._decayed, picks, strict=True)]
        self._aims = [aim * self._keep + PICKS * weight for aim, weight in zip(self._aims, WEIGHTS, strict=True)]
        values[self._counts], values[self._targets] = self._decayed, self._aims
        values[self._loss] = 2.0 + 8.0 / math.sqrt(step) + values[self._loss + 1] * (step % 101) / 1000
        return values


def write_rings(folder: Path, steps: int, *, ranks: int = 1, world_size: int = 2) -> None:
    """Write the rings of a job that has ended: each rank's own records, and in the first one the cluster's.

    Args:
        folder: A folder, which is made.
        steps: Log steps, all of which the rings hold.
        ranks: Ranks whose rings are here.
        world_size: Ranks of the job.
    """
    folder.mkdir(parents=True)
    begin = time.time_ns() - steps * INTERVAL_NS
    for rank in range(ranks):
        identity = Identity(
            run_id=RUN_ID, attempt=begin // 1_000_000, rank=rank, world_size=max(ranks, world_size), host="node"
        )
        records = steps * (2 if rank == 0 else 1)
        ring = RingWriter(ring_path(folder, identity), SCHEMA, identity, records=records, facts=_FACTS)
        values = Values(rank)
        for step in range(1, steps + 1):
            row, at = values.at(step), begin + step * INTERVAL_NS
            ring.write(step, at, Kind.RANK, row)
            if rank == 0:
                ring.write(step, at, Kind.CLUSTER, row)
        ring.close(steps, begin + (steps + 1) * INTERVAL_NS)
        ring.release()


def write_state(state: Path, steps: int) -> Path:
    """Write a bridge's wandb file of the run that `write_rings` makes, and return it.

    Args:
        state: The folder that would be the bridge's.
        steps: Rows.
    """
    folder = state / WANDB_FOLDER / f"offline-run-20260101_000000-{RUN_ID}"
    folder.mkdir(parents=True)
    path = folder / f"run-{RUN_ID}.wandb"
    with path.open("wb") as file:
        file.write(FILE_HEADER)
        position = len(FILE_HEADER)
        for record in _rows(steps):
            chunks = b"".join(framed(record, position))
            file.write(chunks)
            position += len(chunks)
    return path


def _rows(steps: int) -> Iterator[bytes]:
    """Yield wandb's record of each row."""
    values, numbers = Values(0), random.Random(0)
    layout = values.layout
    begin = time.time() - steps
    keys = [key for key in layout.keys if key is not None]
    own = ["train/step", "train/attempt", "_step", "_timestamp", "_runtime"]
    heads = [_field(0x12, key.encode()) + b"\x82\x01" for key in (*keys, *own)]
    orders = [numbers.sample(range(len(heads)), len(heads)) for _ in range(64)]
    for step in range(1, steps + 1):
        by_key = layout.by_key(*layout.split(values.at(step)))
        texts = [_text(by_key.get(key)) for key in keys]
        texts += [b"%d" % step, b"1", b"%d" % (step - 1), _text(begin + step), _text(float(step))]
        items = [
            _field(0x0A, heads[index] + bytes([len(texts[index])]) + texts[index])
            for index in orders[step % len(orders)]
            if texts[index]
        ]
        yield b"\x08" + _number(step) + _field(0x12, b"".join(items) + _field(0x12, b"\x08" + _number(step - 1)))


def _text(value: float | None) -> bytes:
    if value is None:
        return b""
    return b"%d" % value if value.is_integer() else repr(value).encode()


def _number(value: int) -> bytes:
    """Return a number as protobuf has it."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _field(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + _number(len(content)) + content


def framed(record: bytes, position: int) -> Iterator[bytes]:
    """Yield a record as LevelDB's log has it, from a position in the file on."""
    begin, is_first = 0, True
    while begin < len(record) or is_first:
        room = BLOCK_BYTES - position % BLOCK_BYTES
        if room < _CHUNK.size:
            yield bytes(room)
            position, room = position + room, BLOCK_BYTES
        part = record[begin : begin + room - _CHUNK.size]
        last = begin + len(part) == len(record)
        kind = (_FULL if last else _FIRST) if is_first else (_LAST if last else _MIDDLE)
        yield _CHUNK.pack(zlib.crc32(part, zlib.crc32(bytes([kind]))), len(part), kind) + part
        position += _CHUNK.size + len(part)
        begin, is_first = begin + len(part), False


def main() -> None:
    """Write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="is made")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--ranks", type=int, default=1, help="rings")
    parser.add_argument("--wandb", action="store_true", help="a wandb file in a bridge's state folder, not rings")
    arguments = parser.parse_args()
    if arguments.wandb:
        write_state(arguments.folder, arguments.steps)
    else:
        write_rings(arguments.folder, arguments.steps, ranks=arguments.ranks)


if __name__ == "__main__":
    main()
