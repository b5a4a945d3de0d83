"""A session whose ring does not fit where it is wanted, or may not be there."""

from __future__ import annotations

from pathlib import Path

import pytest

import otel_train
from otel_train.ring import RingReader, ring_files
from tests.support.mounts import mounted

pytestmark = pytest.mark.usefixtures("external_sidecar")


def train(directory: Path, records: int = 4096) -> dict[str, float]:
    """Train three steps and return the newest cluster-wide values."""
    with otel_train.init(ring_dir=directory, ring_records=records, close_timeout=0.01) as telemetry:
        for step in (1, 2, 3):
            telemetry.step(step, {"loss": float(step)})
        assert telemetry.latest is not None
        return telemetry.latest[1]


@pytest.mark.parametrize(
    ("size", "most", "records"), [("4m", 2**20, 4096), ("200k", 51200, None), ("120k", 122880, 64)]
)
def test_ring_takes_free_quarter(
    size: str, most: int, records: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The rings take a quarter of what is free, but 64 records at least, with one warning below 4096."""
    with mounted(tmp_path, f"size={size}"):
        assert train(tmp_path)["loss"] == 3.0
        reader = RingReader(ring_files(tmp_path)[0])
        assert reader.progress.step == 3
        assert most / 2 < reader.geometry.file_size <= most or reader.geometry.records == records
        reader.close()
    warned = [f"holds {reader.geometry.records} records instead of 4096" in message for message in caplog.messages]
    assert warned == [True] * (records != 4096)


def test_default_size_needs_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A ring of a thousand scalars keeps to the default size, and that it has fewer records then is no warning."""
    with otel_train.init(ring_dir=tmp_path, close_timeout=0.01) as telemetry:
        telemetry.step(1, {f"layer{number}/norm": 1.0 for number in range(1000)})
    reader = RingReader(ring_files(tmp_path)[0])
    assert 8 * 2**20 < reader.geometry.file_size <= 16 * 2**20
    assert caplog.messages == []


def test_full_memory_costs_records_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where not even the smallest ring fits, a warning says so once, and the session goes on without records."""
    with mounted(tmp_path, "size=8k"):
        assert train(tmp_path)["loss"] == 3.0
        assert list(tmp_path.iterdir()) == []
    assert ["nothing is recorded on this rank" in message for message in caplog.messages] == [True]


def test_read_only_directory_costs_records(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A read-only directory costs the records, with one warning, and the session goes on."""
    with mounted(tmp_path, "ro,mode=700"):
        assert train(tmp_path)["loss"] == 3.0
        assert train(tmp_path / "run")["loss"] == 3.0
    first, second = caplog.messages
    for message in (first, second):
        assert "nothing is recorded" in message
        assert "Read-only file system" in message
