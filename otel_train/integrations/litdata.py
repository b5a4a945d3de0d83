"""litdata: a `CombinedStreamingDataset` whose samples are tagged with the dataset that each one came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from otel_train.integrations.source_names import check_kind, source_names, weights_by_name
from otel_train.integrations.tagging_class import tag_results
from otel_train.mixing import SourceMeter
from otel_train.mixing.tags import Field

if TYPE_CHECKING:
    from litdata import CombinedStreamingDataset


def track(
    dataset: CombinedStreamingDataset,
    names: Sequence[str] | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    tokens: Field | None = None,
    sample: Field | None = None,
    **options: Any,
) -> tuple[SourceMeter, Any]:
    """Tag the samples of a `CombinedStreamingDataset`, and return the meter and the same dataset.

        meter, dataset = litdata.track(CombinedStreamingDataset(datasets, weights=[1, 3], iterate_over_all=False))
        for batch in meter.counted(StreamingDataLoader(dataset, batch_size=8)): ...

    Exact with any number of workers, both batching methods, and after the loader's `load_state_dict`. A pass is an
    epoch. With `iterate_over_all` the weights of the others grow when a dataset has ended; the targets stay. With two
    datasets `per_stream` takes them in turn, whatever their weights: that is a drift of the mix.

    Args:
        dataset: Of `StreamingDataset`s, also of classes of your own. They are changed: what they yield has a tag.
        names: Name of each dataset, in order; datasets of one name are one source. By default its last folder.
        weights: The mix that you mean, by name, where it is not that of the datasets' weights.
        tokens: As `SourceMeter.tag` has it, of what each dataset yields.
        sample: As there.
        options: Of the `SourceMeter`; `unit` is that of the batching method unless given.

    Raises:
        ConfigurationError: It is no such dataset, or the names do not fit.
    """
    check_kind(dataset, "_weights", "CombinedStreamingDataset")
    datasets, method, shares = dataset._datasets, dataset._batching_method, dataset._weights  # noqa: SLF001
    names = source_names([part.input_dir.url or part.input_dir.path for part in datasets], names)
    options = {"unit": "batch" if method == "per_stream" else "row"} | options
    meter = SourceMeter(weights or weights_by_name(names, shares), **options)
    for part, name in zip(datasets, names, strict=True):
        reading = part.otel_train_reading = _Reading()
        reading.tag = meter.tag(name, tokens=tokens, repeat=reading.epoch_of, sample=sample)
        tag_results(part, "__iter__", _begun)
        tag_results(part, "__next__", _tagged)
    return meter, dataset


class _Reading:
    """The pass over a dataset that is being read."""

    tag: Any = None
    epoch = -1

    def epoch_of(self, _: Any) -> int:
        return self.epoch


def _begun(dataset: Any, iterator: Any) -> Any:
    # The loader tells its datasets the epoch, but not the copies in workers that persist.
    reading = dataset.otel_train_reading
    reading.epoch = max(dataset.current_epoch - 1, reading.epoch + 1)
    return iterator


def _tagged(dataset: Any, sample: Any) -> Any:
    return dataset.otel_train_reading.tag(sample)
