"""What a failed process's log is said to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_train.smoke.child_process import cause

TORCHRUN = """E1126 03:38:56.0 2 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 2)
torch.distributed.elastic.multiprocessing.errors.ChildFailedError: x
  traceback : To enable traceback see: elsewhere
"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("data.modalities.code finds no file\n", "data.modalities.code finds no file"),
        ('Traceback:\n  File "x"\nValueError: of a rank\nNCCL is unloaded\n', "ValueError: of a rank"),
        ("", "it is empty"),
    ],
)
def test_a_failed_job_is_told_by_its_own_error(log: str, said: str, tmp_path: Path) -> None:
    """One line: a rank's error, not what torchrun says of it; and where the rest is."""
    (tmp_path / "train.log").write_text(log + TORCHRUN)
    assert cause(tmp_path / "train.log") == f"{said} (its log: {tmp_path / 'train.log'})"
