"""SPDL: its `MergeIterator`, whose items carry their tag through the stages of a pipeline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from inspect import iscoroutinefunction, isgeneratorfunction
from typing import Any

from otel_train.mixing import SourceMeter, Tagged, TaggedDataset
from otel_train.mixing.batch_tags import Tags, take_tags
from otel_train.mixing.tags import Field


def track(
    sources: Mapping[str, Iterable[Any]],
    weights: Mapping[str, float] | None = None,
    *,
    tokens: Field | None = None,
    repeat: Field | None = None,
    sample: Field | None = None,
    stop_after: int = 0,
    seed: int = 0,
    **options: Any,
) -> tuple[SourceMeter, Any]:
    """Merge sources as SPDL's `MergeIterator` does, and return the meter and the merged items.

    Exact, with any number of threads and any order of the output. Not seen: what a stage drops. SPDL keeps no state.

    Args:
        sources: Iterables by name.
        weights: Weight by name. By default the sources are visited in turn, which is equal ones.
        tokens: As `SourceMeter.tag` has it; of the item that the source yields, before any stage.
        repeat: As there.
        sample: As there.
        stop_after: Of `MergeIterator`.
        seed: Of `MergeIterator`. Its default draws alike on each rank.
        options: Of the `SourceMeter`.

    Returns:
        The meter, and what goes to `PipelineBuilder.add_source`. Each stage's function goes into `carry`, the one that
        makes a batch into `otel_train.Collate`.
    """
    from spdl.source.utils import MergeIterator  # noqa: PLC0415  # only who uses SPDL has it

    meter = SourceMeter(dict.fromkeys(sources, 1.0) if weights is None else weights, **options)
    tags = {name: meter.tag(name, tokens=tokens, repeat=repeat, sample=sample) for name in sources}
    tagged = [TaggedDataset(items, tags[name]) for name, items in sources.items()]
    by_source = None if weights is None else [weights[name] for name in sources]
    return meter, MergeIterator(tagged, weights=by_source, stop_after=stop_after, seed=seed)


def carry(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a stage's function for items without their tag, whose results have it; a coroutine or generator too."""
    if iscoroutinefunction(function):
        return partial(_awaited, function)
    return partial(_yielded if isgeneratorfunction(function) else _called, function)


def _called(function: Callable[[Any], Any], item: Any) -> Any:
    bare, tags = take_tags(item)
    return _with(tags, function(bare))


async def _awaited(function: Callable[[Any], Awaitable[Any]], item: Any) -> Any:
    bare, tags = take_tags(item)
    return _with(tags, await function(bare))


def _yielded(function: Callable[[Any], Iterable[Any]], item: Any) -> Iterator[Any]:
    bare, tags = take_tags(item)
    for result in function(bare):
        yield _with(tags, result)


def _with(tags: Tags, item: Any) -> Any:
    if item is None or not tags.words:
        return item  # a stage drops None
    word, sample = (values[0] if len(values) == 1 else values for values in tags)
    return Tagged(otel_train=word, sample=item, otel_train_sample=sample)
