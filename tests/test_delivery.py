"""The status file between the sidecar and its ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.delivery import FAILING, MAX_BYTES, STATUS_NAME, DeliveryStatus, read_status, write_status


def test_status_is_read_as_written(tmp_path: Path) -> None:
    """A rank reads what the sidecar wrote last; a text of any length leaves the file small."""
    assert read_status(tmp_path) is None
    status = DeliveryStatus(state=FAILING, cause="UNAVAILABLE", text="é" * 10**5, address="h:1", advice="do", since=1.5)
    write_status(tmp_path, DeliveryStatus())
    write_status(tmp_path, status)
    read = read_status(tmp_path)
    assert read is not None
    assert (read.failing, read.cause, read.since, read.text) == (True, "UNAVAILABLE", 1.5, "é" * 1000)
    assert (tmp_path / STATUS_NAME).stat().st_size < MAX_BYTES
    assert [path.name for path in tmp_path.iterdir()] == [STATUS_NAME]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"state": 1}', b'{"other": ""}', b'{"text": 1}', b"[" * 10**5])
def test_damaged_status_is_no_status(content: bytes, tmp_path: Path) -> None:
    """Whatever stands in the file, reading it raises nothing."""
    (tmp_path / STATUS_NAME).write_bytes(content)
    assert read_status(tmp_path) is None
