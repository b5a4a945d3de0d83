"""A session whose ring does not fit where it is wanted, or may not be there."""

from __future__ import annotations

from pathlib import Path

import pytest

import otel_train
from otel_train.ring import RingReader, ring_files
from tests.mounts import mounted


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


@pytest.mark.parametrize(("size", "holds"), [("4m", 4096), ("200k", 1024), ("20k", 64)])
def test_where_a_ring_does_not_fit_a_smaller_one_is_made(
    size: str, holds: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A quarter, a sixteenth …, and it is said once how many records it holds."""
    with mounted(tmp_path, f"size={size}"):
        assert train(tmp_path)["loss"] == 3.0
        reader = RingReader(ring_files(tmp_path)[0])
        assert (reader.geometry.records, reader.progress.step) == (holds, 3)
        reader.close()
    said = [f"the ring holds {holds} records in place of 4096" in each for each in messages(caplog)]
    assert said == [True] * (holds < 4096)


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
