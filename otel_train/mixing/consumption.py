"""Check that the rows of a batch are the next ones of the plan, and tell why they are not."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from otel_train.exceptions import ConfigurationError
from otel_train.mixing.argument_checks import batch_numbers
from otel_train.mixing.plan import Pick

logger = logging.getLogger(__name__)


def batch_tokens(batch: Mapping[str, Any]) -> dict[int, Any]:
    """Return the number of tokens of each pick of a batch, in the order of the picks.

    Raises:
        ConfigurationError: The batch has no "pick" and "length", or they are no numbers.
    """
    picks, lengths = batch_numbers(batch, "pick"), batch_numbers(batch, "length")
    if len(picks) != len(lengths):
        raise ConfigurationError(
            f"the batch has {len(picks)} picks and {len(lengths)} lengths; hand over both of every row"
        )
    return dict(sorted(zip(picks, lengths, strict=True)))


class LastBatch:
    """The rows of the batch that was counted last, for a loss by source.

    Args:
        slots: The modality of each slot.
        modalities: All of them, in order.
    """

    def __init__(self, slots: Sequence[str], modalities: Sequence[str]) -> None:
        self._slots = [modalities.index(modality) for modality in slots]
        self._picks: Any = None
        self._sources: dict[int, int] = {}

    def begin(self, picks: Any) -> None:
        """Begin with a batch, of which these are the picks' numbers, one a row."""
        self._picks, self._sources = picks, {}

    def add(self, pick: Pick) -> None:
        """Note one of its picks."""
        self._sources[pick.index] = self._slots[pick.slot]

    def sources(self) -> list[int] | None:
        """Return the index of the modality of each row, -1 for one whose pick is not of the batch; None without one."""
        if self._picks is None:
            return None
        return [self._sources.get(pick, -1) for pick in batch_numbers({"pick": self._picks}, "pick")]


def check_next(picks: Sequence[int], expected: int, batch_size: int, *, first_batch: bool) -> None:
    """Check that a batch's picks are the next ones.

    Args:
        picks: Their numbers, ascending.
        expected: The next one.
        batch_size: The dataset's.
        first_batch: Whether the dataset has neither counted a pick nor loaded a state: it may then be a loader which
            has read as far as a saved job, and whole batches are left out.

    Raises:
        ConfigurationError: They are not; the message gives the cause that fits, and what to do.
    """
    first, last = picks[0], picks[-1]
    together = last - first + 1 == len(picks)
    if together and (first == expected or (first_batch and first % batch_size == 0)):
        return
    complaint = f"the batch holds picks {first} to {last}, the next one is {expected}: "
    if not together or (len(picks) != batch_size and first > expected):
        raise ConfigurationError(
            f"{complaint}give the DataLoader the dataset's batch_size ({batch_size}) and let its collate_fn keep "
            "every row"
        )
    if first > expected:
        raise ConfigurationError(
            f"{complaint}the batches between were not read, or come later; read every batch in the order in which "
            "they are made (in_order=True), and let the loader skip none where the dataset goes on from its own "
            "state (a StatefulDataLoader under Lightning saves the batch that is held ahead: use a DataLoader; "
            "transformers: ignore_data_skip=True)"
        )
    raise ConfigurationError(
        f"{complaint}these are counted, so the batch comes after later ones or for the second time; keep the order "
        "in which batches are made (in_order=True), and load the loader's state and the dataset's of one checkpoint, "
        "or the dataset's alone"
    )


def log_skip(first: int, last: int) -> None:
    """Log that a loader has gone on by itself, past some picks."""
    logger.warning(
        "the loader went on by itself, past picks %d to %d, which are not counted: load the dataset's own state to "
        "have the counts before",
        first,
        last,
    )
