"""The reference job's parts: configuration, data, model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from otel_train.exceptions import ConfigurationError
from otel_train.trainer import load_config, shipped_configs
from otel_train.trainer.config import DataConfig, MixingConfig, TrainerConfig
from otel_train.trainer.data import find_streams
from otel_train.trainer.loop import build_dataset
from otel_train.trainer.model import ByteEncoder, plan_waves


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


def test_mixer_errors_name_the_table(tmp_path: Path) -> None:
    """The mixer names its own arguments, which are keys of `[mixing]`."""
    (tmp_path / "text").write_bytes(bytes(9000))
    data = DataConfig(modalities={"prose": ("text",)})
    config = TrainerConfig(data=data, mixing=MixingConfig(weights={"code": 1.0}))
    with pytest.raises(ConfigurationError, match=r"^\[mixing\]: weights names the modality 'code'"):
        build_dataset(config, tmp_path, None)


def test_rows_of_stream_in_turn() -> None:
    """Two rows of a stream in one batch give the state that two batches of one row give."""
    torch.manual_seed(0)
    model = ByteEncoder(4, 8)
    rows = torch.randint(0, 256, (3, 9), dtype=torch.uint8)
    lengths, begins = torch.full((3,), 8), torch.tensor([True, False, True])
    distinct, waves = plan_waves(["a", "a", "b"])
    _, together = model(rows, lengths, begins, torch.zeros(2, 8), waves)
    state = torch.zeros(1, 8)
    for row in (0, 1):
        one = slice(row, row + 1)
        _, state = model(rows[one], lengths[one], begins[one], state, plan_waves(["a"])[1])
    assert distinct == ["a", "b"]
    torch.testing.assert_close(together[0], state[0])


def test_wrong_state_changes_loss() -> None:
    """The loss depends on the state that a stream's row begins with, unless the row is its first."""
    torch.manual_seed(0)
    model = ByteEncoder(4, 8)
    row, length, waves = torch.randint(0, 256, (1, 9), dtype=torch.uint8), torch.tensor([8]), plan_waves(["a"])[1]
    losses = {
        (begins, fill): model(row, length, torch.tensor([begins]), torch.full((1, 8), fill), waves)[0].item()
        for begins in (True, False)
        for fill in (0.0, 0.9)
    }
    assert losses[True, 0.0] == losses[True, 0.9]
    assert losses[False, 0.0] != losses[False, 0.9]
