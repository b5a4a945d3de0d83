"""The runs that the reading tools are measured on."""

from __future__ import annotations

from pathlib import Path

from benchmarks.tool_inputs import framed, write_rings, write_state
from otel_train.bridge.wandb_file import BLOCK_BYTES
from otel_train.read.load import load


def test_rings_and_wandb_file_agree(tmp_path: Path) -> None:
    """Both hold one run: its steps and all of its values, and the rings' picks are the draws by the weights."""
    write_rings(tmp_path / "rings", 40)
    write_state(tmp_path / "state", 40)
    rings, rows = load(str(tmp_path / "rings")).history, load(str(tmp_path / "state")).history
    assert list(rings.cluster.steps) == list(rows.cluster.steps) == list(range(1, 41))
    assert len(rings.cluster.values) > 35
    assert all(list(rings.cluster.column(key)) == list(rows.cluster.column(key)) for key in rings.cluster.values)
    assert [sum(interval.picks) for interval in rings.mix] == [64.0] * 39


def test_record_spans_blocks() -> None:
    """A block that has room for a chunk's head alone gets it, and the record goes on in the next block."""
    chunks = list(framed(b"x" * 10, BLOCK_BYTES - 7))
    assert [chunk[6] for chunk in chunks] == [2, 4]
    assert [len(chunk) for chunk in chunks] == [7, 17]
