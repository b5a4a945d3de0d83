"""mosaicml-streaming: a `StreamingDataset` whose samples are tagged with the stream that each one came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from otel_train.integrations.source_names import check_kind, source_names, weights_by_name
from otel_train.integrations.tagging_class import tag_results
from otel_train.mixing import SourceMeter
from otel_train.mixing.tags import Field


def track(
    dataset: Any,
    names: Sequence[str] | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    tokens: Field | None = None,
    samples: bool = False,
    **options: Any,
) -> tuple[SourceMeter, Any]:
    """Tag the samples of a `StreamingDataset`, and return the meter and the same dataset.

        meter, dataset = mosaic.track(StreamingDataset(streams=streams, batch_size=8), tokens="tokens")
        for batch in meter.counted(StreamingDataLoader(dataset, batch_size=8)): ...

    Exact with any number of workers, each batching method, after the loader's `load_state_dict` too. A pass is an
    epoch; not known: passes over a stream within one, where its proportion asks for more samples than it has.

    Args:
        dataset: A `StreamingDataset`, also of a class of your own. It is changed: what it yields has a tag.
        names: Name of each stream, in order; streams of one name are one source. By default the last folder of each
            one's `remote` or `local`.
        weights: The mix that you mean, by name, where it is not the streams' proportions.
        tokens: As `SourceMeter.tag` has it, of what the dataset's `__getitem__` returns.
        samples: Whether a tag holds the sample's number in the dataset, for `stream_mixing.repeats`.
        options: Of the `SourceMeter`; `unit` and `scope` are those of the batching method unless given.

    Raises:
        ConfigurationError: It is no such dataset, or the names do not fit.
    """
    check_kind(dataset, "batching_method", "StreamingDataset of mosaicml-streaming")
    streams, method = dataset.streams, dataset.batching_method
    names = source_names([stream.remote or stream.local for stream in streams], names)
    options = {
        "unit": "batch" if method in ("per_stream", "device_per_stream") else "row",
        "scope": "cluster" if method == "stratified" else "rank",
    } | options
    meter = SourceMeter(weights or weights_by_name(names, [stream.proportion for stream in streams]), **options)
    reading = dataset.otel_train_reading = _Reading()
    sample = reading.number_of if samples else None
    reading.tags = [meter.tag(name, tokens=tokens, repeat=reading.epoch_of, sample=sample) for name in names]
    tag_results(dataset, "__getitem__", _tagged)
    return meter, dataset


class _Reading:
    """The sample that is being tagged. It doesn't hold the dataset, which frees its folders with its last reference."""

    tags: Sequence[Any] = ()
    epoch = number = 0

    def epoch_of(self, _: Any) -> int:
        return self.epoch

    def number_of(self, _: Any) -> int:
        return self.number


def _tagged(dataset: Any, sample: Any, at: Any) -> Any:
    if not isinstance(at, Integral):
        return sample  # a slice or a list of samples, which no loader asks for
    reading = dataset.otel_train_reading
    reading.number, reading.epoch = int(at) % dataset.size, max(0, dataset.next_epoch - 1)
    shard, _ = dataset.spanner[reading.number]
    return reading.tags[dataset.stream_per_shard[shard]](sample)
