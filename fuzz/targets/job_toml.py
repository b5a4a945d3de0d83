"""A job's configuration file."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from otel_train.catalogue import HEADLINE_KEYS
from otel_train.exceptions import ConfigurationError
from otel_train.trainer.config import load_config


def run(data: bytes) -> None:
    """Load the file; all that may be raised says what is wrong with it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "job.toml"
        path.write_bytes(data)
        try:
            config = load_config(path)
        except ConfigurationError as error:
            assert str(error).startswith((path.name, str(path)))  # noqa: PT017  # any other error is a find as well
            return
        for key in HEADLINE_KEYS:
            str(config.healthy_range(key))
