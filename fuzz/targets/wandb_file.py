"""A `.wandb` file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from otel_train.bridge import WandbFileError, read_history
from otel_train.read.dump import Selection
from otel_train.read.history import SourceError
from otel_train.read.wandb import read_file
from otel_train.read.wandb_dump import open_dump


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
        with suppress(SourceError):
            read_file(path)
            rows = open_dump(path, Selection(all_attempts=True))
            for block in rows.blocks():
                assert len(block.values) == len(rows.columns) * len(block.steps)
