"""The reference model: rows of one stream, and the state between them."""

from __future__ import annotations

import torch

from otel_train.trainer.model import ByteEncoder, plan_waves


def test_rows_of_stream_in_turn() -> None:
    """Two rows of a stream in one batch give the state that two batches of one row give."""
    torch.manual_seed(0)
    model = ByteEncoder(4, 8)
    rows = torch.randint(0, 256, (3, 9), dtype=torch.uint8)
    lengths, begins = torch.full((3,), 8), torch.tensor([True, False, True])
    distinct, waves = plan_waves(["a", "a", "b"])
    loss, together, by_row = model(rows, lengths, begins, torch.zeros(2, 8), waves)
    state = torch.zeros(1, 8)
    for row in (0, 1):
        one = slice(row, row + 1)
        alone, state, _ = model(rows[one], lengths[one], begins[one], state, plan_waves(["a"])[1])
        torch.testing.assert_close(by_row[row], alone.detach())
    assert distinct == ["a", "b"]
    torch.testing.assert_close(together[0], state[0])
    torch.testing.assert_close(by_row.mean(), loss.detach())  # rows of one length


def test_wrong_state_changes_loss() -> None:
    """The loss depends on the state that a stream's row begins with, unless the row is its first."""
    torch.manual_seed(0)
    model = ByteEncoder(4, 8)
    row, length, waves = torch.randint(0, 256, (1, 9), dtype=torch.uint8), torch.tensor([8]), plan_waves(["a"])[1]
    losses = {
        (begins, fill): model(row, length, torch.tensor([begins]), torch.full((1, 8), fill), waves)[0].item()
        for begins in (True, False)
        for fill in (0.0, 0.9)
    }
    assert losses[True, 0.0] == losses[True, 0.9]
    assert losses[False, 0.0] != losses[False, 0.9]
