"""Count a loader's passes, for rows whose payload can't tell the pass that they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


class Epochs:
    """A loader that notes the number of the pass that it reads.

    Args:
        loader: Gives a pass each time that it is iterated.
        number: Of the first pass.
    """

    def __init__(self, loader: Iterable[Any], number: int) -> None:
        self.loader = loader
        self.number = number - 1
        """Of the pass that is being read."""

    def __iter__(self) -> Iterator[Any]:
        self.number += 1
        yield from self.loader
