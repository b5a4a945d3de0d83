"""Compare the sample keys that rows carry in their tags: which batches have any, and in which pass each was read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from otel_train.catalogue import SAMPLES, Layout, Metric
from otel_train.exceptions import ConfigurationError
from otel_train.log_once import OnceLogger
from otel_train.mixing.batch_tags import Tags, tag_tensor
from otel_train.mixing.repeats import Repeats
from otel_train.torch_modes import outside_modes

logger = logging.getLogger(__name__)

_LAYOUT = Layout(SAMPLES)
_CAUSE = "sample keys"
_UNCOMPARED = (
    "batches carry sample keys, which are not compared: make the meter with SourceMeter(..., samples=True), or its "
    "tags with tag(..., sample=...) before telemetry is initialised"
)
_NO_KEYS = (
    "a batch carries no sample keys, so stream_mixing/repeats does not tell of it: make its tags with "
    "tag(..., sample=...), and keep 'otel_train_sample' of the rows beside 'otel_train'"
)


class SampleKeys:
    """The sample keys of a rank's rows, and whether they are compared.

    Args:
        compared: Whether they are; `compare` sets it later.
        window: Newest rows that are compared.

    Raises:
        ConfigurationError: `window` is not a positive whole number.
    """

    def __init__(self, *, compared: bool, window: int) -> None:
        self._compared = compared
        self._repeats = Repeats(window)
        self._is_declared = self._is_seen = False
        self._warnings = OnceLogger(logger)

    def compare(self) -> None:
        """Compare them from now on; too late once the metrics have been read, since these stay as they are."""
        self._compared |= not self._is_declared

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics that are measured, none where no keys are compared; settled when they are first read."""
        self._is_declared = True
        return SAMPLES if self._compared else ()

    @outside_modes
    def count(self, tags: Tags) -> None:
        """Count the rows of a batch that have a key; warn once where keys are compared and there are none, or reversed.

        Raises:
            ConfigurationError: Keys that are compared are not whole numbers.
        """
        if self._compared:
            if not self._repeats.add(*tagged_samples(tags)):
                self._warnings.warn(_CAUSE, _NO_KEYS)
        elif not self._is_seen and _has_keys(tags):
            self._warnings.warn(_CAUSE, _UNCOMPARED)
        self._is_seen = True

    def drain(self) -> list[float]:
        """Return the measurements of `metrics`."""
        return self._repeats.drain() if self._compared else []

    def values(self) -> dict[str, float]:
        """Return this rank's own values, by wandb key."""
        return _LAYOUT.by_key(self._repeats.drain(), []) if self._compared else {}

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved."""
        return self._repeats.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            StateMismatchError: It is the state of something else; nothing is changed then.
        """
        self._repeats.load_state_dict(state)


def _has_keys(tags: Tags) -> bool:
    try:
        return bool((tagged_samples(tags)[0] >= 0).any())
    except ConfigurationError:  # nobody needs them
        return False


def tagged_samples(tags: Tags) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the hash of each row's sample key, int64 [n] on the CPU, negative without one, and a tag, int64 [n].

    A batch may have one key for several tags, those of the segments of a packed row: the tag is the first segment's.

    Raises:
        ConfigurationError: They are not whole numbers.
    """
    parts = [_part(*pair) for pair in zip(tags.samples, tags.words, strict=True)]
    keys, words = parts[0] if len(parts) == 1 else (torch.cat(column) for column in zip(*parts, strict=True))
    return keys, words


def _part(samples: Any, words: Any) -> tuple[torch.Tensor, torch.Tensor]:
    keys, tags = tag_tensor(samples), tag_tensor(words)
    if len(keys) != len(tags):
        # A lone key is the mark of rows without one; of tags in another number than one or more a key none has a pass.
        segments = len(tags) // len(keys) if len(keys) and len(tags) % len(keys) == 0 else 0
        tags = tags[::segments] if segments else torch.zeros_like(keys)
    return keys, tags
