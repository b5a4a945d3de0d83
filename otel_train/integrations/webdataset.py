"""webdataset: a `RandomMix` or `RoundRobin` whose samples are tagged with the dataset that each one came from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from otel_train.integrations.source_names import check_kind, source_names, weights_by_name
from otel_train.mixing import SourceMeter, TaggedDataset
from otel_train.mixing.tags import Field, Tag


def track(
    mix: Any,
    names: Sequence[str],
    *,
    weights: Mapping[str, float] | None = None,
    tokens: Field | None = None,
    sample: Field | None = None,
    **options: Any,
) -> tuple[SourceMeter, Any]:
    """Tag the samples of a mix of datasets, and return the meter and a mix of the same.

    Exact with any number of workers, and through a `WebLoader`'s stages, as long as they keep the samples' keys: where
    one makes tuples, have "otel_train" among its fields and call `meter.count_tags` with that column. Passes are not
    known. With `longest` the probabilities of the others grow when a dataset ends; the targets stay.

    Args:
        mix: A `RandomMix` or `RoundRobin`.
        names: Name of each dataset, in order; datasets of one name are one source.
        weights: The mix that you mean, by name, where it is not that of `probs`.
        tokens: As `SourceMeter.tag` has it, of what the datasets yield.
        sample: As there.
        options: Of the `SourceMeter`.

    Raises:
        ConfigurationError: It is no mix, or the names are not as many as its datasets.
    """
    check_kind(mix, "datasets", "RandomMix or RoundRobin")
    names = source_names([None] * len(mix.datasets), names)
    probabilities = getattr(mix, "probs", None) or [1.0] * len(names)
    meter = SourceMeter(weights or weights_by_name(names, probabilities), **options)
    tagged = copy.copy(mix)
    tags = [meter.tag(name, tokens=tokens, sample=sample) for name in names]
    tagged.datasets = [TaggedDataset(*pair) for pair in zip(mix.datasets, tags, strict=True)]
    return meter, tagged


def track_shards(
    dataset: Any,
    weights: Mapping[str, float],
    source: Callable[[str], str],
    *,
    tokens: Field | None = None,
    sample: Field | None = None,
    **options: Any,
) -> tuple[SourceMeter, Any]:
    """Tag the samples of a dataset whose shards hold one source each, by the URL of the shard.

    Args:
        dataset: A `WebDataset`, before a stage that drops "__url__".
        weights: Weight by source: what the shards should come to.
        source: Returns the source of a shard's URL; picklable, for worker processes.
        tokens: As `SourceMeter.tag` has it.
        sample: As there.
        options: Of the `SourceMeter`.
    """
    meter = SourceMeter(weights, **options)
    tags = {name: meter.tag(name, tokens=tokens, sample=sample) for name in weights}
    return meter, dataset.map(partial(_tagged, tags, source))


def _tagged(tags: Mapping[str, Tag], source: Callable[[str], str], sample: Mapping[str, Any]) -> Any:
    return tags[source(sample["__url__"])](sample)
