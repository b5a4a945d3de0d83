"""A job that goes on with 4, 2, 3, 1, 4 ranks, other batches, readers and weights: real ranks, real checkpoints."""

from __future__ import annotations

import itertools
import json
import logging
import operator
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

import otel_train
from otel_train.ledger import StateLedger
from otel_train.mixing import StreamMixingDataset
from otel_train.ring import RingReader, ring_files
from otel_train.trainer.checkpoint import Checkpoints, Parts
from tests.support.torchrun import run_torchrun, script

WORLD_SIZES = (4, 2, 3, 1, 4)
ROWS = (3, 2, 4, 3, 2)
"""Rows of a batch in each attempt, which is configured in another way than the one before."""
STEPS, STREAMS, LENGTH = 6, 22, 4


@dataclass(frozen=True)
class Numbers:
    """A stream of a few numbers."""

    id: str
    modality: str

    def __len__(self) -> int:
        return LENGTH

    def read(self, position: int) -> tuple[dict[str, Any], int]:
        """Return a row of one token."""
        return {"number": position}, 1


def train(attempt: int, out: Path) -> Iterator[list[Any]]:
    """Go on where the last attempt was saved, make some steps, save, and yield what was seen of each stream."""
    streams = [Numbers(f"{'ab'[number % 2]}{number}", "ab"[number % 2]) for number in range(STREAMS)]
    batch_size, readers = ROWS[attempt], (3, 4, 2, 5, 3)[attempt]
    dataset = StreamMixingDataset(streams, {"a": 1, "b": attempt + 1}, readers=readers, batch_size=batch_size, seed=5)
    # The state of a stream is its number and how many of its rows were seen; one rank can hold them all.
    ledger = StateLedger((2,), capacity=STREAMS, dtype=torch.float64)
    model = torch.nn.Linear(2, 1)
    telemetry = otel_train.init(
        sources=[dataset, ledger],
        ring_dir=out / "rings",
        blocking=True,
        reduction_timeout=60.0,
        close_timeout=0.1,  # no sidecar is there that an end could wait for
    )
    parts = Parts(
        model=model, optimizer=torch.optim.Adam(model.parameters()), dataset=dataset, ledger=ledger, telemetry=telemetry
    )
    checkpoints = Checkpoints(out / "checkpoints", keep=1)
    saved = checkpoints.load(parts)
    loader = DataLoader(dataset, batch_size=batch_size)
    for step, batch in enumerate(itertools.islice(loader, STEPS), start=saved + 1):
        seen: dict[str, list[int]] = {}
        for stream, position in zip(batch["stream"], batch["position"].tolist(), strict=True):
            seen.setdefault(stream, []).append(position)
        states, had_state = ledger.fetch(list(seen))
        numbers = torch.tensor([float(stream[1:]) for stream in seen])
        counts = states[:, 1] + torch.tensor([len(positions) for positions in seen.values()])
        ledger.store(list(seen), torch.stack([numbers, counts], dim=1).to(ledger.dtype))
        picks = (telemetry.step(step) or {})[dataset.metrics[0].wandb_key]
        yield from (
            [step, stream, positions, held, state, picks]
            for (stream, positions), held, state in zip(seen.items(), had_state.tolist(), states.tolist(), strict=True)
        )
    checkpoints.save(saved + STEPS, parts)
    telemetry.close()


def train_all(out: Path) -> None:
    """Be a rank of each attempt that is large enough for it, and write what it saw."""
    rank = int(os.environ["RANK"])
    logging.basicConfig(level=logging.INFO, filename=out / f"log{rank}.txt")
    for attempt, world_size in enumerate(WORLD_SIZES):
        if rank < world_size:
            meeting = f"file://{out}/meeting{attempt}"
            dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
            (out / f"attempt{attempt}-rank{rank}.json").write_text(json.dumps(list(train(attempt, out))))
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all attempts and return their folder."""
    folder = tmp_path_factory.mktemp("resume")
    run_torchrun(4, script(folder, train_all, folder))
    return folder


@pytest.fixture(scope="module")
def attempts(out: Path) -> list[list[list[Any]]]:
    """Return what was seen in each attempt, by all of its ranks, in the order of its steps."""
    names = [[out / f"attempt{number}-rank{rank}.json" for rank in range(n)] for number, n in enumerate(WORLD_SIZES)]
    return [sorted(itertools.chain(*(json.loads(path.read_text()) for path in paths))) for paths in names]


def test_streams_resume_with_their_state(attempts: list[list[list[Any]]]) -> None:
    """No row is left out or read twice, and the new owner has the state that the old one had."""
    read: dict[str, int] = {}
    for _, stream, positions, had_state, state, _ in itertools.chain(*attempts):
        before = read.get(stream, 0)
        assert positions == [number % LENGTH for number in range(before, before + len(positions))]
        assert (had_state, state) == (before > 0, [float(stream[1:]), before] if before else [0, 0])
        read[stream] = before + len(positions)
    assert len(read) == STREAMS
    assert sum(read.values()) == STEPS * sum(map(operator.mul, WORLD_SIZES, ROWS))


def test_steps_resume_with_own_counts(attempts: list[list[list[Any]]]) -> None:
    """Each step of the one axis has the picks of the ranks that made it, on all of them."""
    picks = {(step, count) for step, *_, count in itertools.chain(*attempts)}
    expected = [world_size * rows for world_size, rows in zip(WORLD_SIZES, ROWS, strict=True) for _ in range(STEPS)]
    assert sorted(picks) == list(enumerate(expected, start=1))


def test_attempts_share_one_run(out: Path) -> None:
    """The checkpoint holds the run's id; attempts grow, and their rings begin from zero."""
    identities = [RingReader(path).identity for path in ring_files(out / "rings")]
    assert len({identity.run_id for identity in identities}) == 1
    numbers = sorted({identity.attempt for identity in identities})
    ranks = [sorted(identity.rank for identity in identities if identity.attempt == number) for number in numbers]
    assert ranks == [list(range(world_size)) for world_size in WORLD_SIZES]


def test_resharding_is_logged_once(out: Path) -> None:
    """With the old size, the new one, the streams, how many moved, and the step; only the newest checkpoint is kept."""
    pattern = r"resharded: world size (\d) -> (\d), (\d+) streams, (\d+) moved to another rank, at step (\d+)"
    logs = "".join((out / f"log{rank}.txt").read_text() for rank in range(4))
    lines = [tuple(map(int, groups)) for groups in re.findall(pattern, logs)]
    assert [(old, new, streams, step) for old, new, streams, _, step in lines] == [
        (*sizes, STREAMS, STEPS * number) for number, sizes in enumerate(itertools.pairwise(WORLD_SIZES), start=1)
    ]
    assert all(0 < moved < STREAMS for *_, moved, _ in lines)
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{len(WORLD_SIZES) * STEPS:08d}"]
