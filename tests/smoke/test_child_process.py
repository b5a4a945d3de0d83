"""The cause of a failed process, by its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.smoke.child_process import cause

TORCHRUN = """E1126 03:38:56.0 2 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 2)
torch.distributed.elastic.multiprocessing.errors.ChildFailedError: x
  traceback : To enable traceback see: elsewhere
"""


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("data.modalities.code finds no file\n", "data.modalities.code finds no file"),
        ('Traceback:\n  File "x"\nValueError: of a rank\nNCCL is unloaded\n', "ValueError: of a rank"),
        ("", "it is empty"),
    ],
)
def test_cause_is_ranks_error(log: str, message: str, tmp_path: Path) -> None:
    """The cause of a failure is a rank's own error, without torchrun's words, on one line with the log's name."""
    (tmp_path / "train.log").write_text(log + TORCHRUN)
    assert cause(tmp_path / "train.log") == f"{message} (its log: {tmp_path / 'train.log'})"
