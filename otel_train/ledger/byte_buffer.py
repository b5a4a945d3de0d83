"""Rows of bytes that are sent or received, in memory that the next call uses again."""

from __future__ import annotations

import torch

_MOST = 2**25
"""Bytes that are kept for the next call (32 MB)."""


class ByteBuffer:
    """Rows of one call. On the CPU the next call has the same memory, which is in the caches still.

    Larger calls, and those on a GPU, whose allocator keeps memory itself, have new memory each time.
    """

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8, device="cpu")

    def rows(self, count: int, width: int, device: torch.device) -> torch.Tensor:
        """Return uint8 [count, width] with any contents, for use until the next call of this method."""
        size = count * width
        if device.type != "cpu" or size > _MOST:
            return torch.empty(count, width, dtype=torch.uint8, device=device)
        if size > len(self._bytes):
            self._bytes = torch.empty(size, dtype=torch.uint8, device="cpu")
        return self._bytes.as_strided((count, width), (width, 1))
