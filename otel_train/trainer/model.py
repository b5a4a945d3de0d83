"""The reference model: a byte-level recurrent encoder trained to predict the next byte, state carried between rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

BYTES = 256


class ByteEncoder(nn.Module):
    """A GRU over bytes.

    Args:
        embedding: Width of a byte's embedding.
        hidden: Width of the state, H.
    """

    def __init__(self, embedding: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.embed = nn.Embedding(BYTES, embedding)
        self.recurrent = nn.GRU(embedding, hidden, batch_first=True)
        self.project = nn.Linear(hidden, BYTES)

    def forward(
        self, rows: Tensor, lengths: Tensor, begins: Tensor, states: Tensor, waves: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict each row's next bytes, row after row where a batch has several of one stream.

        Args:
            rows: uint8 [B, T + 1], inputs and the byte after each.
            lengths: int64 [B], inputs that have a byte after them.
            begins: bool [B], whether the row is its stream's first, which starts from zeros.
            states: float [S, H], the state of each stream in the batch.
            waves: (rows, streams) index pairs, int64 each: the rows that can be encoded together, in order.

        Returns:
            The mean cross-entropy over all predicted bytes; the states after the rows, float [S, H], detached; and the
            mean cross-entropy of each row, float [B], detached.
        """
        by_row = rows.new_zeros(len(rows), dtype=torch.float32)
        states = states.clone()
        for row_index, stream_index in waves:
            data = rows[row_index].long()
            start = torch.where(begins[row_index, None], 0.0, states[stream_index])
            output, last = self.recurrent(self.embed(data[:, :-1]), start.unsqueeze(0))
            mask = torch.arange(output.shape[1], device=rows.device) < lengths[row_index, None]
            losses = functional.cross_entropy(
                self.project(output).flatten(0, 1), data[:, 1:].flatten(), reduction="none"
            )
            by_row = by_row.index_add(0, row_index, (losses.view_as(mask) * mask).sum(1))
            # Truncated back-propagation: the gradient stops where a row ends.
            states[stream_index] = last[0].detach().to(states.dtype)
        loss = by_row.sum() / lengths.sum().clamp(min=1)
        return loss, states, by_row.detach() / lengths.clamp(min=1)


def plan_waves(streams: list[str]) -> tuple[list[str], list[tuple[Tensor, Tensor]]]:
    """Sort a batch's rows into waves, so that a stream's second row comes after its first.

    Args:
        streams: The stream of each row.

    Returns:
        The distinct streams, and for each wave the rows and their streams' indices, int64.
    """
    distinct = list(dict.fromkeys(streams))
    index_of = {stream: index for index, stream in enumerate(distinct)}
    seen: dict[str, int] = {}
    waves: list[list[int]] = []
    for row, stream in enumerate(streams):
        wave = seen.get(stream, 0)
        seen[stream] = wave + 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(row)
    return distinct, [(torch.tensor(rows), torch.tensor([index_of[streams[row]] for row in rows])) for rows in waves]
