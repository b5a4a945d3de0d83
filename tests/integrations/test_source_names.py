"""Names of the sources of a loader."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from otel_train.exceptions import ConfigurationError
from otel_train.integrations import litdata, mosaic, webdataset
from otel_train.integrations.source_names import source_names


@pytest.mark.parametrize(
    ("paths", "names", "message"),
    [
        (["/a/train", "/b/train"], None, "do not tell the sources apart"),
        (["/a/train", None], None, "do not tell the sources apart"),
        (["", "/"], None, "do not tell the sources apart"),
        (["/a", "/b"], ["a"], "one for each of the 2 sources"),
        (["/a", "/b"], "ab", "one for each of the 2 sources"),
    ],
)
def test_unclear_names_are_refused(paths: list[str | None], names: list[str] | None, message: str) -> None:
    """Paths that end alike need names, and names must be as many as the sources."""
    with pytest.raises(ConfigurationError, match=message):
        source_names(paths, names)


def test_given_names_may_be_equal() -> None:
    """Several streams may be one source."""
    assert source_names(["/a", "/b", "/c"], ("x", "x", "y")) == ["x", "x", "y"]


@pytest.mark.parametrize("track", [litdata.track, mosaic.track, lambda mix: webdataset.track(mix, ["a"])])
def test_other_objects_are_refused(track: Any) -> None:
    """A loader in the dataset's place is named."""
    with pytest.raises(ConfigurationError, match="got DataLoader; put loaders"):
        track(DataLoader(TensorDataset(torch.zeros(1))))
