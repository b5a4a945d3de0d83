"""Count sample keys that were seen before, in a window of this rank's and by a sketch in the windows of all ranks."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch

from otel_train.arguments import check_fields, reading_state, whole_number
from otel_train.catalogue.repeat_sketch import CELLS, LEFT_OUT, LEVEL_BITS, LEVELS, WIDTH, code_of
from otel_train.mixing.tags import REPEAT_SHIFT, REPEATS
from otel_train.mixing.tally import FEW
from otel_train.splitmix import INCREMENT
from otel_train.torch_modes import outside_modes

_MOST_KEYS = 256
"""Distinct keys that are looked at: all of a window's, or a half, a quarter … of them, chosen by their low bits."""
_FEWEST_BATCHES = 8
"""Batches in a window at least: workers that read the same samples hand them out one after the other."""
_OWNER = "Repeats"
_BITS = 2**63 - 1
_OF_PASS = INCREMENT << 32
"""Distance of a sample's keys in two passes: the low bits, which choose the keys that are looked at, stay."""


class Repeats:
    """The sample keys of this rank's newest batches, and how many of them are repeats.

    A window holds the newest batches, as many as have at most `window` rows together, and at least eight. Up to 256
    distinct keys its counts are exact. Beyond, only keys are looked at whose last bits are zero, as many bits as leave
    at most 256 (adaptive sampling: Flajolet 1990, "On adaptive sampling"). Where a share s of the rows are repeats, its
    standard deviation is then some sqrt(s * (1 - s) / 128), and where nothing repeats it is 0. So a row's part in the
    time does not grow with the window. What ranks have in common follows from `otel_train.catalogue.repeat_sketch`.

    Args:
        window: Rows of the window.

    Raises:
        ConfigurationError: `window` is not a positive whole number.
    """

    def __init__(self, window: int = 4096) -> None:
        self.window = whole_number("window", window, least=1, remedy="4096 rows is the default")
        self._begin(shift=0)

    def _begin(self, shift: int) -> None:
        self._shift = shift
        """Low bits that are zero in the keys that are looked at."""
        self._batches: deque[tuple[int, list[int]]] = deque()
        """Rows of each batch in the window, and its keys that are looked at."""
        self._rows = 0
        self._looked_at = 0
        """Keys in `_batches`."""
        self._counts: dict[int, int] = {}
        # Of the keys that are looked at a quarter or less is in the lowest level: an even number of its bits are zero.
        lowest = min(-(-shift // LEVEL_BITS) + 1, LEVELS - 1) if shift else 0
        self._sketch_mask = (1 << LEVEL_BITS * lowest) - 1
        """Low bits that are zero in the keys of the sketch, some 64 of this rank's at most."""
        self._cells = [0.0] * WIDTH
        for level in range(lowest):
            self._cells[level * CELLS] = LEFT_OUT

    @outside_modes
    def add(self, hashes: torch.Tensor, tags: torch.Tensor | None = None) -> int:
        """Count a batch, and return how many of its rows have a key.

        Args:
            hashes: int64 [rows] on the CPU, the hash of each row's sample key as `sample_code` makes it; negative for
                a row without one, which is not counted.
            tags: int64 [rows] as `pack_tag` makes them, of which the pass is used: a sample of a new pass is no repeat.
        """
        mask = (1 << self._shift) - 1
        rows = len(hashes)
        words = hashes.new_zeros(rows) if tags is None else tags
        if rows > FEW:
            if int(hashes.min()) < 0:
                has_key = hashes >= 0
                hashes, words = hashes[has_key], words[has_key]
                rows = len(hashes)
            if mask:
                is_chosen = (hashes & mask) == 0
                hashes, words = hashes[is_chosen], words[is_chosen]
            pairs = list(zip(hashes.tolist(), words.tolist(), strict=True))
        else:
            pairs = [pair for pair in zip(hashes.tolist(), words.tolist(), strict=True) if pair[0] >= 0]
            rows = len(pairs)
            pairs = [pair for pair in pairs if not pair[0] & mask]
        if not rows:
            return 0
        self._append(rows, [key + (word >> REPEAT_SHIFT) % REPEATS * _OF_PASS & _BITS for key, word in pairs])
        self._evict()
        while len(self._counts) > _MOST_KEYS:
            self._halve()
        return rows

    def _append(self, rows: int, keys: list[int]) -> None:
        counts, sketch_mask = self._counts, self._sketch_mask
        self._batches.append((rows, keys))
        self._rows += rows
        self._looked_at += len(keys)
        for key in keys:
            if key in counts:
                counts[key] += 1
            else:
                counts[key] = 1
                if not key & sketch_mask:
                    self._add_code(key, 1)

    def _evict(self) -> None:
        counts, sketch_mask = self._counts, self._sketch_mask
        while self._rows > self.window and len(self._batches) > _FEWEST_BATCHES:
            rows, keys = self._batches.popleft()
            self._rows -= rows
            self._looked_at -= len(keys)
            for key in keys:
                if counts[key] > 1:
                    counts[key] -= 1
                else:
                    del counts[key]
                    if not key & sketch_mask:
                        self._add_code(key, -1)

    def _add_code(self, key: int, sign: int) -> None:
        cell, code = code_of(key)
        self._cells[cell] += sign * code

    def _halve(self) -> None:
        """Look at half of the keys from now on."""
        batches = self._batches
        self._begin(self._shift + 1)
        mask = (1 << self._shift) - 1
        for rows, keys in batches:
            self._append(rows, [key for key in keys if not key & mask])

    def drain(self) -> list[float]:
        """Return the window's measurements, the sums of `REPEATS`; the window goes on.

        Returns:
            float [2 + WIDTH]: rows in the window, those of them that are repeats, the sketch.
        """
        repeated = self._looked_at - len(self._counts)
        share = repeated / self._looked_at if self._looked_at else 0.0
        return [float(self._rows), self._rows * share, *self._cells]

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved, so that rows which a resumed loader reads once more are seen."""
        return {"shift": self._shift, "batches": [(rows, list(keys)) for rows, keys in self._batches]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, with the present window.

        Raises:
            StateMismatchError: It is none that `state_dict` returned; nothing is changed then.
        """
        with reading_state(_OWNER):
            check_fields(state, ("shift", "batches"), _OWNER)
            shift = range(64)[state["shift"]]
            batches = [(int(rows), [int(key) for key in keys]) for rows, keys in state["batches"]]
        self._begin(shift)
        for rows, keys in batches:
            self._append(rows, keys)
        self._evict()
