"""Hugging Face datasets, map-style or iterable, that `interleave_datasets` mixes by probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from datasets import Dataset, Features, IterableDataset, Value, concatenate_datasets, interleave_datasets
from datasets.features.features import require_decoding

from otel_train.mixing import SourceMeter
from otel_train.mixing.tags import SAMPLE_KEY, TAG_KEY, Field, Tag


def track(
    sources: Mapping[str, Any],
    probabilities: Sequence[float] | None = None,
    *,
    seed: int | None = None,
    stopping_strategy: str = "first_exhausted",
    tokens: Field | None = None,
    repeat: Field | None = None,
    sample: Field | None = None,
    **options: Any,
) -> tuple[SourceMeter, Any]:
    """Tag the rows of datasets and interleave them; return a meter with their probabilities, and the dataset.

        meter, dataset = hf_datasets.track({"code": code, "prose": prose}, [0.25, 0.75], seed=0, tokens="tokens")
        dataset = split_dataset_by_node(dataset, rank, world_size).shuffle(seed=0, buffer_size=1000)  # one seed for all
        for batch in meter.counted(DataLoader(dataset, 8, num_workers=2)): ...

    Exact: picks, tokens, shares and switches of what the loop has read, over a resume too. Not known: that a source
    begins again, unless `repeat` tells, and that one has ended: call `meter.end(source)`. A `with_transform` must keep
    the columns `otel_train` and `otel_train_sample`.

    Args:
        sources: A dataset by source: all map-style, which get a column and are not copied, or all iterable.
        probabilities: Of each source, in order; None for each in turn.
        seed: As for `interleave_datasets`.
        stopping_strategy: As for `interleave_datasets`.
        tokens: As for `SourceMeter.tag`.
        repeat: As for `SourceMeter.tag`.
        sample: As for `SourceMeter.tag`.
        options: For the `SourceMeter`.
    """
    shares = [1.0] * len(sources) if probabilities is None else probabilities
    meter = SourceMeter(dict(zip(sources, shares, strict=True)), **options)
    fields = {"tokens": tokens, "repeat": repeat, "sample": sample}
    tagged = [tag_rows(rows, meter.tag(source, **fields)) for source, rows in sources.items()]
    return meter, interleave_datasets(tagged, probabilities, seed=seed, stopping_strategy=stopping_strategy)


def tag_rows(rows: Any, tag: Tag) -> Any:
    """Return a dataset whose rows carry a tag."""
    tags = {TAG_KEY: Value("int64")} | ({} if tag.sample is None else {SAMPLE_KEY: Value("int64")})
    if isinstance(rows, IterableDataset):
        # With known features nothing is read while the datasets are interleaved; images would be encoded anew.
        features = rows.features
        plain = features is not None and not any(map(require_decoding, features.values()))
        return rows.map(tag, features=Features({**features, **tags}) if plain else None)
    if not len(rows):
        return rows
    bare = rows.with_format(None)
    fields = [field for field in (tag.tokens, tag.repeat, tag.sample) if field is not None]
    if all(isinstance(field, str) for field in fields):  # NumPy's arrays are not made into lists
        names = sorted({str(field) for field in fields}) or rows.column_names[:1]
        bare = bare.select_columns(names).with_format("numpy")
    add, names = partial(tag_columns, tag), bare.column_names
    column = bare.map(add, batched=True, remove_columns=names, features=Features(tags))
    joined: Dataset = concatenate_datasets([rows.with_format(None), column], axis=1)
    form, keep = rows.format, rows.format["output_all_columns"]
    return joined.with_format(form["type"], [*form["columns"], *tags], output_all_columns=keep, **form["format_kwargs"])


def tag_columns(tag: Tag, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[int]]:
    """Return the columns that a tag adds to some rows."""
    tagged = [tag(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    return {key: [row[key] for row in tagged] for key in (TAG_KEY, SAMPLE_KEY) if key in tagged[0]}
