"""Files of the ranks' meters beside a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.integrations.fit_session import FitSession
from otel_train.integrations.meter_files import read_meters, write_meter
from otel_train.mixing import SourceMeter


def saved(folder: Path, ranks: int) -> list[dict[str, object]]:
    """Write the meters of some ranks, which have counted nothing, and return their states."""
    states = [SourceMeter({"code": 1, "prose": 1}, step=rank + 1).state_dict() for rank in range(ranks)]
    for rank, state in enumerate(states):
        write_meter(folder / "checkpoint-5", state, rank, ranks)
    return states


def test_rank_reads_its_own(tmp_path: Path) -> None:
    """A rank of a world of the same size gets what it wrote."""
    states = saved(tmp_path, 2)
    assert read_meters(tmp_path / "checkpoint-5", 1, 2) == {"meter": states[1]}


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (2, 3), (0, 4), (2, 4)])
def test_other_world_reads_all(tmp_path: Path, rank: int, world_size: int) -> None:
    """A rank of a world of another size gets all of them, those of a larger world before left out."""
    saved(tmp_path, 4)
    states = saved(tmp_path, 2)
    assert read_meters(tmp_path / "checkpoint-5", rank, world_size) == {"meters": states}


def test_disks_may_be_apart(tmp_path: Path) -> None:
    """A node that has its own ranks' files only has what it needs."""
    states = saved(tmp_path, 2)
    (tmp_path / "checkpoint-5" / "otel_train_meter_0.pt").unlink()
    assert read_meters(tmp_path / "checkpoint-5", 1, 2) == {"meter": states[1]}


def test_nothing_saved_is_nothing(tmp_path: Path) -> None:
    """A checkpoint of a job without a meter has none."""
    assert read_meters(tmp_path, 0, 2) == {}


def test_meter_goes_on_from_file(tmp_path: Path) -> None:
    """What is read is what a fit's state takes."""
    saved(tmp_path, 1)
    meter = SourceMeter({"code": 1, "prose": 1}, step=9)
    fit = FitSession(meter=meter, ring_dir=tmp_path / "rings", close_timeout=0.01)
    fit.load_state_dict({"run_id": "", **read_meters(tmp_path / "checkpoint-5", 0, 1)})
    fit.begin()
    fit.end()
    assert meter.step == 1


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04"])
def test_unread_meter_begins_anew(tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is missing or damaged costs the meter its past, which is logged, and nobody the training."""
    saved(tmp_path, 2)
    path = tmp_path / "checkpoint-5" / "otel_train_meter_1.pt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert read_meters(tmp_path / "checkpoint-5", 1, 2) == {}
    assert "rank 1's meter begins anew" in caplog.text


def test_full_disk_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A meter that can't be written is logged, and the training goes on."""
    (tmp_path / "checkpoint-5").write_text("no folder")
    saved(tmp_path, 1)
    assert "the meter of rank 0 is not saved" in caplog.text
