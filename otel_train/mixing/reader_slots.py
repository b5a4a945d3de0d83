"""The slots of a rank's readers: the modality of each one's stream, and the step at which it was last picked."""

from __future__ import annotations

from array import array

from otel_train.native.arrays import overwrite

EMPTY = -1
"""The modality's index of a slot that holds no stream."""


class ReaderSlots:
    """Modality and last pick of each slot. Its arrays stay the same objects, so that a pick can write them at once.

    Args:
        slots: Number of slots.
        step: The step that the first picks belong to.
    """

    def __init__(self, slots: int, step: int) -> None:
        self.last_picked_step = array("q", [step]) * slots
        """Step of each slot's last pick, or of its opening where that came later."""
        self.modality_for_reader: list[str | None] = [None] * slots
        """Modality of each slot's stream, None for an empty slot."""
        self.modality_index = array("q", [EMPTY]) * slots
        """Index of that modality, `EMPTY` for an empty slot."""
        self.active = 0.0
        """Number of slots that hold a stream; a float, as records have it."""

    def __len__(self) -> int:
        return len(self.modality_index)

    def assign(self, slot: int, modality: str | None, index: int = EMPTY) -> None:
        """Set the modality of a slot's stream, None for no stream."""
        self.modality_for_reader[slot] = modality
        self.modality_index[slot] = index
        self.active = float(len(self) - self.modality_index.count(EMPTY))

    def reset_ages(self, step: int) -> None:
        """Let every reader's age begin at a step."""
        overwrite(self.last_picked_step, [step] * len(self))

    def settle(self, expected: int, step: int) -> None:
        """Give what was picked and opened in the step that was expected to the step that ends now.

        Steps may be reported with a stride, and a job may begin at any of them: which step is made is known at its end.
        """
        settled = [step if picked == expected else picked for picked in self.last_picked_step]
        overwrite(self.last_picked_step, settled)

    def active_last_picks(self) -> list[int]:
        """Return the step of the last pick of each slot that holds a stream."""
        if self.active == len(self):
            return self.last_picked_step.tolist()
        pairs = zip(self.last_picked_step, self.modality_index, strict=True)
        return [picked for picked, modality in pairs if modality != EMPTY]
