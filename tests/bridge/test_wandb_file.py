"""Reading wandb's transaction logs, and the package's public names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import otel_train.bridge
from otel_train.bridge import HistoryRow, WandbFileError, read_history, wandb_files
from otel_train.bridge.wandb_file import TransactionLog
from tests.support.step_requests import step_request


@pytest.fixture
def file(start: Any) -> Path:
    """A file of some blocks: 40 rows of about 4 KB."""
    bridge = start()
    bridge.send(*(step_request(step, {f"metric{n}": step / 3 for n in range(100)}) for step in range(40)))
    bridge.wait(40)
    bridge.stop()
    (path,) = wandb_files(bridge.state, "run")
    return path


def test_torn_file_is_read_partly(file: Path) -> None:
    """Rows that span blocks are read whole, and a torn end is left out."""
    whole = list(read_history(file))
    data = file.read_bytes()
    assert len(data) > 3 * 32768
    assert [row.values["metric7"] for row in whole] == [step / 3 for step in range(40)]
    for size in (0, 7, 9, len(data) // 2, len(data) // 2 + 1):
        file.write_bytes(data[:size])
        torn = list(read_history(file))
        assert torn == whole[: len(torn)]
    assert len(torn) > 10


def test_damage_is_named(file: Path) -> None:
    """A flipped bit and a file of another kind are errors with file and offset, never wrong rows."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(WandbFileError, match=r"run-run\.wandb.*damaged"):
        list(read_history(file))
    file.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(WandbFileError, match="not a wandb transaction log"):
        list(read_history(file))


def test_public_names_are_lazy() -> None:
    """A reader of the inbox loads no gRPC, wandb or torch, and `__all__` is sorted and true."""
    names = otel_train.bridge.__all__
    assert names == sorted(names)
    assert all(hasattr(otel_train.bridge, name) for name in names)
    code = (
        "import json, sys, otel_train.bridge as b; b.delivered_steps('/nowhere', 'run'); "
        "lazy = [m for m in ('grpc', 'wandb', 'torch') if m in sys.modules]; b.Bridge; "
        "print(json.dumps([lazy, 'wandb' in sys.modules, 'torch' in sys.modules]))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert json.loads(output) == [[], False, False]


def test_growing_file_is_read_on(start: Any) -> None:
    """A growing file gives every row once, wherever it ended meanwhile: in a record, a header or a block."""
    bridge = start()
    bridge.send(*(step_request(step, {f"metric{n}": step / 3 for n in range(100)}) for step in range(20)))
    bridge.wait(20)
    bridge.stop()
    (path,) = wandb_files(bridge.state, "run")
    data, whole = path.read_bytes(), list(read_history(path))
    assert len(data) > 2 * 32768
    growing = path.with_name("growing")
    growing.touch()
    history: list[HistoryRow] = []
    with TransactionLog(growing) as log:
        for size in (0, 3, 7, 9, *range(1000, len(data), 997), 32768, 32768 + 5, len(data)):
            growing.write_bytes(data[: max(size, growing.stat().st_size)])
            history += log.rows()
    assert history == whole
