"""A session whose ring does not fit where it is wanted, or may not be there."""

from __future__ import annotations

from pathlib import Path

import pytest

import otel_train
from otel_train.ring import RingReader, ring_files
from tests.support.mounts import mounted


@pytest.fixture(autouse=True)
def external(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no sidecar."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records]


def train(directory: Path, records: int = 4096) -> dict[str, float]:
    """Train three steps and return the newest cluster-wide values."""
    with otel_train.init(ring_dir=directory, ring_records=records, close_timeout=0.01) as telemetry:
        for step in (1, 2, 3):
            telemetry.step(step, {"loss": float(step)})
        assert telemetry.latest is not None
        return telemetry.latest[1]


@pytest.mark.parametrize(("size", "most", "records"), [("4m", 2**20, 4096), ("200k", 51200, None), ("20k", 20480, 64)])
def test_a_ring_takes_a_quarter_of_what_is_free(
    size: str, most: int, records: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """But holds 64 records at least, and it is said once when it holds fewer than 4096."""
    with mounted(tmp_path, f"size={size}"):
        assert train(tmp_path)["loss"] == 3.0
        reader = RingReader(ring_files(tmp_path)[0])
        assert reader.progress.step == 3
        assert most / 2 < reader.geometry.file_size <= most or reader.geometry.records == records
        reader.close()
    said = [f"holds {reader.geometry.records} records instead of 4096" in each for each in messages(caplog)]
    assert said == [True] * (records != 4096)


def test_a_thousand_scalars_take_no_more_than_the_default_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """That the ring holds fewer records is no warning then."""
    with otel_train.init(ring_dir=tmp_path, close_timeout=0.01) as telemetry:
        telemetry.step(1, {f"layer{number}/norm": 1.0 for number in range(1000)})
    reader = RingReader(ring_files(tmp_path)[0])
    assert 8 * 2**20 < reader.geometry.file_size <= 16 * 2**20
    assert messages(caplog) == []


def test_where_not_even_the_smallest_ring_fits_nothing_is_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and the values are in the session."""
    with mounted(tmp_path, "size=8k"):
        assert train(tmp_path)["loss"] == 3.0
        assert list(tmp_path.iterdir()) == []
    assert ["nothing is recorded on this rank" in each for each in messages(caplog)] == [True]


def test_a_read_only_directory_costs_the_records_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and the values are in the session."""
    with mounted(tmp_path, "ro,mode=700"):
        assert train(tmp_path)["loss"] == 3.0
        assert train(tmp_path / "run")["loss"] == 3.0
    said = messages(caplog)
    assert ["nothing is recorded" in each and "Read-only file system" in each for each in said] == [True, True]
