"""Files that are not a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.exceptions import ConfigurationError
from otel_train.trainer import load_config
from otel_train.trainer.config import MAX_BYTES, MAX_MESSAGE


@pytest.mark.parametrize(
    "content",
    [
        "a = " + "[" * 5000,
        "[job]\nsteps = " + "1" * 5000,
        "[model]\nlearning_rate = " + "1" * 400,
        "[job]\nsteps" + ".a" * 5000 + " = 1",
        "[job]\n" + "s" * 100_000 + " = 1",
        "[job]\nsteps = '" + "s" * 100_000 + "'",
        "#" * MAX_BYTES,
        "\udcff",
    ],
    ids=["nested", "digits", "too large", "deep table", "long key", "long value", "long file", "no text"],
)
def test_wrong_file_raises_short_error(content: str, tmp_path: Path) -> None:
    """It names the file, whatever is wrong with it, and does not repeat a megabyte of it."""
    path = tmp_path / "job.toml"
    path.write_text('[data.modalities]\nprose = ["*.txt"]\n' + content, errors="surrogateescape")
    with pytest.raises(ConfigurationError, match=r"job\.toml: ") as caught:
        load_config(path)
    assert len(str(caught.value)) < MAX_MESSAGE + 200
