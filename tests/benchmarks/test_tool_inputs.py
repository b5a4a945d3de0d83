"""The runs that the reading tools are measured on."""

from __future__ import annotations

from pathlib import Path

from benchmarks.tool_inputs import write_rings, write_state
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
