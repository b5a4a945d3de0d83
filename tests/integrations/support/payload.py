"""
Samples whose payload tells their source, their key and their number of tokens, so that what was consumed needs no tag.

A sample's x is int64 [16]: the source's number from 1, the key, the number of the pass, and a 1 for each token.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.integrations.support.case_loop import Row

WEIGHTS = {"code": 1.0, "prose": 3.0}
"""The mix that the jobs should have."""
SOURCES = tuple(WEIGHTS)
LATER = {"prose": 3.0, "math": 1.0}
"""Another mix, for a job that goes on with a source less, one more, and the others at another index."""
_NUMBERED = (*SOURCES, "math")
WIDTH = 16
_HEAD = 3


def numbers(source: str, key: int, repeat: int = 0) -> list[int]:
    """Return a sample's payload; it has 1 to 13 tokens."""
    head = [_NUMBERED.index(source) + 1, key, repeat]
    length = 1 + key % (WIDTH - _HEAD)
    return head + [1] * length + [0] * (WIDTH - _HEAD - length)


def sample(source: str, key: int, repeat: int = 0) -> dict[str, Any]:
    """Return a sample as most datasets have it: a tensor, and its number of tokens beside it."""
    x = torch.tensor(numbers(source, key, repeat))
    return {"x": x, "tokens": tokens_of(x)}


def tokens_of(x: torch.Tensor) -> int:
    """Return the number of tokens of a payload."""
    return int(x[_HEAD:].sum())


def rows_of(x: torch.Tensor, repeat: int = 0) -> list[Row]:
    """Return the rows of a batch's payload, int64 [rows, 16], in the pass that the payload has or `repeat` tells."""
    return [Row(_NUMBERED[int(row[0]) - 1], tokens_of(row), int(row[2]) or repeat) for row in x]
