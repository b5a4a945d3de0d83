"""A run is read from any source."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.catalogue import rows
from otel_train.how_far import told
from otel_train.read.history import SourceError
from otel_train.read.load import load
from otel_train.ring import Identity, Kind, RingWriter, ring_path
from tests.support.job_rings import write_job
from tests.support.train_job import Train, write_wandb_file
from tests.support.written_rings import SCHEMA

PICKS, STEP = rows.PICKS.wandb_key, rows.STEP.wandb_key


def rows_of(steps: range) -> list[dict[str, float]]:
    """Return rows of a wandb file."""
    return [{STEP: step, PICKS: 100.0 + step, rows.RANKS.wandb_key: 2, "text": "x"} for step in steps]  # type: ignore[dict-item]


def test_wandb_file_precedes_rings(train: Train, tmp_path: Path) -> None:
    """The cluster's older steps come from the wandb file; the newer ones and the ranks stay those of the rings."""
    train(tmp_path / "rings", steps=30, records=16)
    write_wandb_file(tmp_path / "wandb" / "offline-run-x" / "run-run-1.wandb", rows_of(range(1, 31)))
    loaded = load(str(tmp_path))
    track = loaded.history.cluster
    assert list(track.steps) == list(range(1, 31))
    assert list(track.column(PICKS)) == [100.0 + step for step in range(1, 15)] + [8.0] * 16
    assert loaded.history.ranks[0].steps[-1] == 30
    assert loaded.job is not None
    assert "rings" in loaded.history.source
    assert "before step 15" in loaded.history.source


def test_reading_tells_how_far(tmp_path: Path) -> None:
    """Whoever listens hears of each part of the work that it begins, goes on and ends."""
    (tmp_path / "rings").mkdir()
    write_job(tmp_path / "rings", 2, 9)
    write_wandb_file(tmp_path / "state" / "run-a.wandb", rows_of(range(1, 40)))
    heard: dict[str, list[float]] = {}
    with told(lambda part, share: heard.setdefault(part, []).append(share)):
        load(str(tmp_path / "rings"))
        load(str(tmp_path / "state" / "run-a.wandb"))
    assert heard["rings read"] == [0.0, 0.5, 1.0]
    assert heard["records checked"] == [1.0, 1.0]
    assert heard["bytes read"] == sorted(heard["bytes read"])
    assert 0 <= heard["bytes read"][0] < 1 == heard["bytes read"][-1]


def test_run_is_chosen(tmp_path: Path) -> None:
    """A bridge's directory has all runs that it received, of which --run names one."""
    write_wandb_file(tmp_path / "wandb" / "offline-run-1" / "run-a.wandb", rows_of(range(1, 4)))
    write_wandb_file(tmp_path / "wandb" / "offline-run-2" / "run-b.wandb", rows_of(range(1, 3)))
    with pytest.raises(SourceError, match="holds 2 runs; give one as --run: a, b"):
        load(str(tmp_path))
    history = load(str(tmp_path), run="b").history
    assert (list(history.cluster.steps), history.world_size) == ([1, 2], 2)
    assert list(load(str(tmp_path / "wandb" / "offline-run-1" / "run-a.wandb")).history.cluster.steps) == [1, 2, 3]


def test_run_is_chosen_among_rings(tmp_path: Path) -> None:
    """Jobs of a pool may share a directory of rings: --run names one; without it the newest is read."""
    for run, attempt, steps in (("first", 1, 2), ("second", 2, 3)):
        for rank in range(2):
            identity = Identity(run_id=run, attempt=attempt, rank=rank, world_size=2, host="here")
            ring = RingWriter(ring_path(tmp_path, identity), SCHEMA, identity, records=8)
            for step in range(1, steps + 1):
                ring.write(step, 10 * step, Kind.RANK, [float(step)] * ring.geometry.values)
    for run, newest in (("first", 2), ("second", 3), ("", 3)):
        history = load(str(tmp_path), run=run).history
        assert (history.run_id, history.ranks[1].steps[-1]) == (run or "second", newest)
    with pytest.raises(SourceError, match="holds first, second, not run third; give one as --run"):
        load(str(tmp_path), run="third")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is neither a directory nor a .wandb file nor"),  # noqa: ARG005
        (lambda path: path.mkdir(), "holds no rings and no wandb folder"),
        (lambda path: (path / "wandb").mkdir(parents=True), "holds 0 runs"),
        (lambda path: (path.mkdir(), (path / "rank0-1.ring").write_text("x")), "holds no ring that can be read"),
    ],
)
def test_unreadable_source_is_refused(tmp_path: Path, make: object, message: str) -> None:
    """A source that can't be read is an error of one line."""
    assert callable(make)
    make(tmp_path / "source")
    with pytest.raises(SourceError, match=message) as raised:
        load(str(tmp_path / "source"))
    assert "\n" not in str(raised.value)
