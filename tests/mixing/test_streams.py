"""Streams that a dataset refuses, and the stream of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from otel_train.exceptions import ConfigurationError
from otel_train.mixing import FileStream, StreamMixingDataset
from tests.support.number_streams import Numbers


@pytest.mark.parametrize(
    ("streams", "complaint"),
    [
        ([], "streams must name at least one, got none"),
        (None, "streams must be a list of streams, got NoneType"),
        ([object()], "a stream must have id, modality and a number of rows"),
        ([Numbers(7, "a", 3)], "a stream's id and modality must be texts, got 7"),  # type: ignore[arg-type]
        ([Numbers("s", "a", 0)], "stream 's' has no rows"),
        ([Numbers("s", "a", 3)] * 2, "two streams have the id 's'"),
    ],
)
def test_wrong_streams_raise(streams: Any, complaint: str) -> None:
    """The message says which stream breaks a rule."""
    with pytest.raises(ConfigurationError, match=complaint):
        StreamMixingDataset(streams, {"a": 1}, readers=1)


@pytest.mark.parametrize("numbers", [{"chunk": 0}, {"chunk": 1.5}, {"max_bytes": -1}])
def test_file_stream_checks_numbers(tmp_path: Path, numbers: dict[str, Any]) -> None:
    """A row without inputs would have no length."""
    (tmp_path / "text").write_bytes(bytes(9))
    with pytest.raises(ConfigurationError, match=f"{next(iter(numbers))} must be"):
        FileStream("text", "a", str(tmp_path / "text"), **{"chunk": 4, **numbers})
