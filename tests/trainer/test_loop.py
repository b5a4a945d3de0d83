"""The dataset that the reference job builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.exceptions import ConfigurationError
from otel_train.trainer.config import DataConfig, MixingConfig, TrainerConfig
from otel_train.trainer.loop import build_dataset


def test_mixer_errors_name_the_table(tmp_path: Path) -> None:
    """The mixer names its own arguments, which are keys of `[mixing]`."""
    (tmp_path / "text").write_bytes(bytes(9000))
    data = DataConfig(modalities={"prose": ("text",)})
    config = TrainerConfig(data=data, mixing=MixingConfig(weights={"code": 1.0}))
    with pytest.raises(ConfigurationError, match=r"^\[mixing\]: weights names the modality 'code'"):
        build_dataset(config, tmp_path, None)
