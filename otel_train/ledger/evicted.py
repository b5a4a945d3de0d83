"""The bounded ring of recently evicted keys, by which a false eviction differs from a new stream, as it is seen."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from otel_train.ledger.int_buffer import tensor_of
from otel_train.ledger.key_table import KeyTable
from otel_train.stable_hash import stable_hash
from otel_train.torch_modes import outside_modes


class EvictedKeys:
    """Keys in the order of their eviction; the oldest is dropped when the ring is full.

    Args:
        table: The table whose ring this is.
        capacity: The most keys that are remembered.
    """

    def __init__(self, table: KeyTable, capacity: int) -> None:
        self._table = table
        self.capacity = capacity

    def __len__(self) -> int:
        return self._table.remembered

    def __contains__(self, key: object) -> bool:
        """Tell whether a key (the `stable_hash`), or a stream id that is a string, is remembered."""
        if isinstance(key, str):
            key = stable_hash(key)
        return isinstance(key, int) and -(2**63) <= key < 2**63 and self._table.remembers(key)

    def __iter__(self) -> Iterator[int]:
        return iter(memoryview(self._table.ring()).cast("q"))

    @outside_modes
    def in_order(self) -> torch.Tensor:
        """Return the keys, int64 [len(self)], the oldest eviction first."""
        return tensor_of(self._table.ring())
