"""Streams that the reference job finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.exceptions import ConfigurationError
from otel_train.trainer import load_config, shipped_configs
from otel_train.trainer.config import DataConfig
from otel_train.trainer.data import find_streams


@pytest.mark.parametrize("path", shipped_configs().values(), ids=lambda path: path.stem)
def test_shipped_configurations_have_data(path: Path) -> None:
    """Each of them loads, and every modality has files on this machine."""
    config = load_config(path)
    modalities = {stream.modality for stream in find_streams(config.data, path.parent)}
    assert modalities == set(config.data.modalities)


def test_globs_are_relative_to_file(tmp_path: Path) -> None:
    """A user's files become streams named by their relative paths, too short ones are left out."""
    (tmp_path / "texts").mkdir()
    for name, size in (("long", 500), ("short", 5)):
        (tmp_path / "texts" / name).write_bytes(bytes(size))
    config = DataConfig(modalities={"prose": ("texts/*",)}, min_bytes=10, max_bytes=129, chunk=64)
    streams = find_streams(config, tmp_path)
    assert [(stream.id, len(stream)) for stream in streams] == [("prose:texts/long", 2)]


def test_modality_without_files_raises(tmp_path: Path) -> None:
    """A pattern that finds nothing is not passed over."""
    with pytest.raises(ConfigurationError, match=r"data.modalities.prose matches no file of at least 4096 bytes"):
        find_streams(DataConfig(modalities={"prose": ("*.nothing",)}), tmp_path)
