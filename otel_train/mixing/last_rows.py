"""The rows of the batch that was counted last, and the source of each, for a loss by source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from otel_train.mixing.batch_tags import tag_tensor
from otel_train.mixing.tally import Tallier, Tally
from otel_train.torch_modes import outside_modes, plain_tensor


class LastRows:
    """Tags of the last batch; what they say is looked up when somebody asks.

    Args:
        tallier: Knows the sources' codes.
    """

    def __init__(self, tallier: Tallier) -> None:
        self._tallier = tallier
        self._words: Sequence[Any] | None = None
        self._counted: torch.Tensor | list[int] | None = None
        self._sources: torch.Tensor | None = None
        self._tables: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def __reduce__(self) -> tuple[type[LastRows], tuple[Tallier]]:
        # A meter may be pickled with a dataset, for a worker process: the batch stays here.
        return LastRows, (self._tallier,)

    def note(self, words: Sequence[Any]) -> None:
        """Note the tags of a batch, as they were in it; none where it had none."""
        self._words, self._counted, self._sources = words or None, None, None

    @outside_modes
    def take(self, tally: Tally) -> None:
        """Take what was counted of that batch: where all its rows are of known sources, it says theirs in order."""
        if self._words is not None and len(self._words) == 1 and isinstance(self._words[0], torch.Tensor):
            self._counted = tally.indices if len(tally.indices) == self._words[0].numel() else None

    @outside_modes
    def sources(self) -> torch.Tensor | None:
        """Return the index of each row's source, int64 [rows] on the device of the tags; None without a batch.

        -1 stands for no source that is known, -2 for padding.
        """
        if self._sources is None and self._counted is not None:
            indices = self._counted
            self._sources = indices if isinstance(indices, torch.Tensor) else tag_tensor(indices)
        if self._sources is None and self._words is not None:
            parts = [
                plain_tensor(part).detach().reshape(-1) if isinstance(part, torch.Tensor) else tag_tensor(part)
                for part in self._words
            ]
            device = next((part.device for part in parts if part.is_cuda), parts[0].device)
            words = torch.cat([part.to(device, non_blocking=True) for part in parts]) if len(parts) > 1 else parts[0]
            self._sources = self._tallier.indices_of(words, self._tables_on(device))
        return self._sources

    def _tables_on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        tables = self._tables.get(device)
        if tables is None:  # they are copied to a GPU once
            table, codes = self._tallier.tables
            tables = self._tables[device] = table.to(device), codes.to(device)
        return tables
