"""grain: its weighted mix of datasets, whose elements carry their tag."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from otel_train.mixing import SourceMeter, Tag
from otel_train.mixing.tags import Field


def track(
    datasets: Mapping[str, Any],
    weights: Mapping[str, float] | None = None,
    *,
    tokens: Field | None = None,
    repeat: Field | None = None,
    sample: Field | None = None,
    **options: Any,
) -> tuple[SourceMeter, Any]:
    """Mix datasets as `MapDataset.mix` or `IterDataset.mix` does, and return the meter and the mix.

    Exact, with threads and `mp_prefetch` workers alike, and after the iterator's `set_state`. Not seen: what is dropped
    before the mix. grain cuts the weights to hundredths of the smallest; the targets are those given here.

    Args:
        datasets: All `MapDataset` or all `IterDataset`, by the source's name. Give each rank its part of each before,
            since a slice of a mix has another mix. A mix of `IterDataset` restores a state by name: sources may come,
            go and change their order between a save and a resume.
        weights: Weight by name; equal ones by default.
        tokens: As `SourceMeter.tag` has it.
        repeat: As there. A `MapDataset`'s passes are counted without it.
        sample: As there.
        options: Of the `SourceMeter`.

    Returns:
        The meter, and the dataset to go on with: shuffle before, and batch after it.
    """
    import grain  # noqa: PLC0415  # only who uses grain has it

    weights = dict.fromkeys(datasets, 1.0) if weights is None else weights
    meter = SourceMeter(weights, **options)
    tagged = {}
    for name, dataset in datasets.items():
        tag = meter.tag(name, tokens=tokens, repeat=repeat, sample=sample)
        passes = repeat is None and isinstance(dataset, grain.MapDataset)
        tagged[name] = dataset.map_with_index(_TagOfPass(tag, _length(dataset))) if passes else dataset.map(tag)
    if all(isinstance(dataset, grain.MapDataset) for dataset in datasets.values()):
        return meter, grain.MapDataset.mix(list(tagged.values()), [weights[name] for name in tagged])
    return meter, grain.IterDataset.mix(tagged, {name: weights[name] for name in tagged})


@dataclass(frozen=True, slots=True)
class _TagOfPass:
    """Tags the element with an index, which goes on from pass to pass."""

    tag: Tag
    length: int

    def __call__(self, index: int, element: Any) -> Any:
        return replace(self.tag, repeat=lambda _: index // self.length)(element)


def _length(dataset: Any) -> int:
    """Return the number of elements of a pass: of the dataset below one that is repeated without end."""
    while len(dataset) >= sys.maxsize and len(dataset.parents) == 1:
        [dataset] = dataset.parents
    return max(len(dataset), 1)
