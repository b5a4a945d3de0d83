"""torch's map-style datasets, mixed by a sampler or by their sizes, in a DataLoader or a StatefulDataLoader."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch.utils.data import ConcatDataset, IterableDataset

from otel_train.exceptions import ConfigurationError
from otel_train.mixing import SourceMeter, TaggedDataset
from otel_train.mixing.tags import Field


def track(
    sources: Mapping[str, Any],
    sampler: Any = None,
    *,
    tokens: Field | None = None,
    repeat: Field | None = None,
    sample: Field | None = None,
    **options: Any,
) -> tuple[SourceMeter, ConcatDataset[Any]]:
    """Concatenate datasets with their rows tagged; return a meter with the weights that the sampler gives, and them.

        sampler = WeightedRandomSampler(row_weights, len(row_weights))
        meter, dataset = torch_datasets.track({"code": code, "prose": prose}, sampler, tokens="tokens")
        for batch in meter.counted(DataLoader(dataset, 8, sampler=sampler, num_workers=2)): ...

    Exact: picks, tokens, shares and switches of what the loop has read, with any number of workers, in any order. Not
    known: that a source is gone through again, unless `repeat` tells.

    Examples:
        >>> from torch.utils.data import WeightedRandomSampler
        >>> from otel_train.integrations import torch_datasets
        >>> sampler = WeightedRandomSampler([0.5, 0.5, 3.0], 8)
        >>> meter, dataset = torch_datasets.track({"code": [1, 2], "prose": [3]}, sampler)
        >>> meter.count(dataset[2])
        3
        >>> meter.drain_step_metrics()["stream_mixing/modality_target/prose"]
        0.75

    Args:
        sources: A map-style dataset by source; the rows of the first come first, as in `ConcatDataset`.
        sampler: Draws the rows, or batches: a `WeightedRandomSampler`, whose weights add up to those of the sources.
            Without one, or with one that has no weights, each row is as likely as another: lengths are the weights.
        tokens: As for `SourceMeter.tag`.
        repeat: As for `SourceMeter.tag`.
        sample: As for `SourceMeter.tag`.
        options: For the `SourceMeter`.

    Raises:
        ConfigurationError: A dataset is iterable, or the sampler has weights for another number of rows.
    """
    ends = [0]
    for source, rows in sources.items():
        if isinstance(rows, IterableDataset) or not hasattr(rows, "__len__"):
            kind = type(rows).__name__
            raise ConfigurationError(f"{source!r} must be map-style, got {kind}: tag it by TaggedDataset instead")
        ends.append(ends[-1] + len(rows))
    row_weights = getattr(getattr(sampler, "sampler", sampler), "weights", None)  # a batch sampler has a sampler
    row_weights = torch.ones(ends[-1]) if row_weights is None else torch.as_tensor(row_weights, dtype=torch.float64)
    if len(row_weights) != ends[-1]:
        raise ConfigurationError(f"the sampler has weights for {len(row_weights)} rows, the sources have {ends[-1]}")
    spans = zip(sources, pairwise(ends), strict=True)
    weights = {source: float(row_weights[first:end].sum()) for source, (first, end) in spans}
    meter = SourceMeter(weights, **options)
    tagged = [
        TaggedDataset(rows, meter.tag(source, tokens=tokens, repeat=repeat, sample=sample))
        for source, rows in sources.items()
    ]
    return meter, ConcatDataset(tagged)
