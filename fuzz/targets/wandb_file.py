"""A `.wandb` file."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from otel_train.bridge import WandbFileError, read_history


def run(data: bytes) -> None:
    """Read the history; all that may be raised says that the file is damaged."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run-x.wandb"
        path.write_bytes(data)
        try:
            for row in read_history(path):
                assert isinstance(row.ordinal, int)
        except WandbFileError:
            return
