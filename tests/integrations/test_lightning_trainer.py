"""Lightning's Trainer with our callback: the rings have the means of what each rank has logged, step by step."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from otel_train.bridge import read_history
from otel_train.catalogue import rows, session_rows
from otel_train.ring import End, Kind, RingReader, ring_files
from tests.integrations.support.loader_job import JOBS, RANKS, Outcome, interpreter, run_program
from tests.integrations.support.wandb_rows import check_wandb
from tests.support.torchrun import ROOT, rank_environment

GOES_ON = {
    "plain": (False, True, True),
    "accumulated": (False,),
    "manual": (False,),
    "resumed": (False, True),
    "twice": (False, True, False),
    "failing": (False, False, False),
}
"""For each fit of a case, whether it goes on where the one before ended."""
ENDS = {"ends": "step", "epoch ends": "epoch", "evaluated": "evaluation"}
"""The end of a step, an epoch or an evaluation, and the kind of what was logged for it."""
OWN = {
    metric.wandb_key
    for metric in (session_rows.STEP_DURATION, session_rows.DATA_WAIT, session_rows.RANKS, session_rows.VALUES_DROPPED)
}
"""Keys that the session measures itself."""
pytestmark = pytest.mark.integrations
Means = dict[str, float]
Events = list[list[Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all cases on two ranks, and return their folder."""
    folder = tmp_path_factory.mktemp("lightning")
    cases = [*GOES_ON, "metered"]
    for case in cases:
        (folder / case).mkdir()
    run_program("torch", JOBS / "lightning_trainer_job.py", folder, *cases, seconds=200)
    return folder


def fits(folder: Path) -> Iterator[list[Events]]:
    """Yield the events of each fit, by rank."""
    by_rank = []
    for rank in range(RANKS):
        parts: list[Events] = [[]]
        for event in json.loads((folder / f"rank{rank}.json").read_text()):
            if event == ["end"]:
                parts.append([])
            else:
                parts[-1].append(event)
        by_rank.append(parts[:-1])
    for ranks in zip(*by_rank, strict=True):
        yield list(ranks)


def expected_means(ranks: Sequence[Events], step: int) -> dict[int, Means]:
    """Return the weighted means, by step, of what the ranks have logged for it before it, an epoch or evaluation ended.

    Args:
        ranks: The events of a fit, by rank.
        step: The one that it goes on from.
    """
    sums: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    for events in with_sums(ranks):
        newest, open_values = step, defaultdict[str, Events](list)
        for event in events:
            if event[0] not in ENDS:
                open_values[event[0]].append(event[1:])
                continue
            newest += event[0] == "ends"
            for name, value, count in open_values.pop(ENDS[event[0]], []):
                total = sums[newest][name]
                total[0] += value * count
                total[1] += count
    return {at: {name: total / count for name, (total, count) in named.items()} for at, named in sums.items()}


def with_sums(ranks: Sequence[Events]) -> Sequence[Events]:
    """Return the events with what Lightning has summed over the ranks in the place of each one's own."""
    synced = [[event for event in events if event[1:2] == ["synced"]] for events in ranks]
    for together in zip(*synced, strict=True):
        total = sum(event[2] for event in together)
        for event in together:
            event[2] = total
    return ranks


def sessions(folder: Path) -> list[dict[int, Means]]:
    """Return the cluster's values of each session, by step, without those that are our own."""
    readers = [RingReader(path) for path in ring_files(folder / "rings")]
    recorded = []
    for reader in sorted(readers, key=lambda reader: reader.identity.attempt):
        if reader.identity.rank == 0:
            values = defaultdict[int, Means](dict)
            for record in reader.read(0, sys.maxsize)[0]:
                if record.kind is Kind.CLUSTER:
                    own = {key: value for key, value in record.by_key().items() if key not in OWN}
                    assert not own.keys() & values[record.step].keys()
                    assert record.by_key().get(rows.VALUES_DROPPED.wandb_key, 0) == 0
                    values[record.step] |= own
            recorded.append(dict(values))
    return recorded


@pytest.mark.parametrize("case", GOES_ON)
def test_values_match_logged(folder: Path, case: str) -> None:
    """Each step, epoch and evaluation has the weighted mean of each value over micro-batches and ranks."""
    last = 0
    recorded = sessions(folder / case)
    for values, ranks, goes_on in zip(recorded, fits(folder / case), GOES_ON[case], strict=True):
        expected = expected_means(ranks, last * goes_on)
        assert sorted(values) == sorted(expected)
        for step, named in expected.items():
            assert values[step] == pytest.approx(named, rel=1e-6), f"step {step}"
        last = max(expected)


def test_ends_are_recorded(folder: Path) -> None:
    """A session that an exception, an interrupt or SIGTERM ends is closed on each rank, and says which."""
    readers = [RingReader(path) for path in ring_files(folder / "failing" / "rings")]
    readers.sort(key=lambda reader: (reader.identity.attempt, reader.identity.rank))
    assert [reader.progress.end for reader in readers] == [End.CLOSED] * 6
    errors = [reader.error for reader in readers]
    assert errors == [error for error in ("ValueError", "KeyboardInterrupt", "SIGTERMException") for _ in range(RANKS)]


@pytest.mark.parametrize("case", GOES_ON)
def test_fits_share_run(folder: Path, case: str) -> None:
    """Each fit and each evaluation is an attempt of the launch's run, on both ranks."""
    identities = [RingReader(path).identity for path in ring_files(folder / case / "rings")]
    assert len({own.run_id for own in identities}) == 1
    assert len({own.attempt for own in identities}) == len(identities) / RANKS == len(GOES_ON[case])


def test_wandb_has_ring_values(folder: Path, tmp_path: Path) -> None:
    """The wandb file of a fit and the one that goes on from its checkpoint has the rings' values, step by step."""
    check_wandb(folder / "resumed", tmp_path)


def test_own_wandb_run_is_whole(folder: Path) -> None:
    """Lightning's WandbLogger beside ours has what it has alone: rank 0's value of each step's last micro-batch."""
    [path] = (folder / "accumulated").glob("wandb/offline-run-*/*.wandb")
    values, newest = [], 0.0
    for event in json.loads((folder / "accumulated" / "rank0.json").read_text()):
        if event[:2] == ["step", "plain"]:
            newest = event[2]
        elif event == ["ends"]:
            values.append(newest)
    logged = [row.values["plain"] for row in read_history(path) if "plain" in row.values]
    assert logged == pytest.approx(values, rel=1e-6)


def test_meter_counts_trained_rows(folder: Path) -> None:
    """Each value of each step is that of the rows that were trained on, in the process that goes on too."""
    outcome = Outcome(folder / "metered")
    outcome.check_values()
    assert outcome.complaints() == []


def test_loss_is_by_source(folder: Path) -> None:
    """Each step has the mean loss of each source's rows, and of all rows, over micro-batches and ranks."""
    outcome = Outcome(folder / "metered")
    losses = [json.loads((outcome.folder / f"losses{rank}.json").read_text()) for rank in range(RANKS)]
    recorded = outcome.values
    for step in range(len(losses[0])):
        named = defaultdict[str, list[float]](list)
        for rank in range(RANKS):
            for row, loss in zip(outcome.consumed[rank][step], losses[rank][step], strict=True):
                named["train/loss"].append(loss)
                named[f"train/loss/{row[0]}"].append(loss)
        expected = {name: sum(values) / len(values) for name, values in named.items()}
        values = {key: value for key, value in recorded[step + 1].items() if key.startswith("train/loss")}
        assert values == pytest.approx(expected, rel=1e-6), f"step {step + 1}"


def test_launched_ranks_meet(tmp_path: Path) -> None:
    """Processes that Lightning forks or spawns are the ranks of one job, and have their common means."""
    strategies = ("ddp_fork", "ddp_spawn")
    for strategy in strategies:
        (tmp_path / strategy).mkdir()
    run_alone(JOBS / "lightning_launch_job.py", tmp_path, *strategies)
    for strategy in strategies:
        losses = [json.loads((tmp_path / strategy / f"rank{rank}.json").read_text()) for rank in range(RANKS)]
        expected = [sum(loss * count for loss, count in step) / 5 for step in zip(*losses, strict=True)]
        [recorded] = sessions(tmp_path / strategy)
        assert [values["train/loss"] for values in recorded.values()] == pytest.approx(expected, rel=1e-6)
        check_two_ranks(tmp_path / strategy)


def test_example_starts_ranks(tmp_path: Path) -> None:
    """The example, which Lightning runs again for its other rank, has right rows, a loss and an evaluation."""
    path = ROOT / "examples" / "trainers" / "lightning_callback.py"
    assert len(path.read_text().splitlines()) < 60
    run_alone(path, OTEL_TRAIN_RING_DIR=str(tmp_path / "rings"))
    [recorded] = sessions(tmp_path)
    assert list(recorded) == list(range(1, 21))
    assert all(values[rows.PICKS.wandb_key] == 64 for values in recorded.values())
    assert [step for step, values in recorded.items() if "val/loss" in values] == [10, 20]
    assert recorded[20]["val/loss"] < recorded[10]["val/loss"]
    assert recorded[20]["train/loss"] < recorded[1]["train/loss"]
    check_two_ranks(tmp_path)


def run_alone(program: Path, *arguments: object, **variables: str) -> None:
    """Run a program in one process, which starts the others."""
    command = [str(interpreter("torch")), str(program), *map(str, arguments)]
    environment = rank_environment(**variables)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check_two_ranks(folder: Path) -> None:
    """Check that the rings are of two ranks of one machine."""
    identities = [RingReader(path).identity for path in ring_files(folder / "rings")]
    assert sorted((own.rank, own.local_rank, own.world_size) for own in identities) == [(0, 0, 2), (1, 1, 2)]
