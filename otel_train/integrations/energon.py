"""megatron-energon: batches whose restore keys say which dataset of a blend each sample came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import PurePath
from typing import Any

from otel_train.exceptions import ConfigurationError
from otel_train.mixing import SourceMeter, Tagged, pack_tag, sample_code
from otel_train.mixing.batch_tags import CountedLoader

Tokens = Callable[[Any], Iterable[int]]


def track(
    loader: Any, *, source: str | None = None, tokens: Tokens | None = None, **options: Any
) -> tuple[SourceMeter, Any]:
    """Return a meter with the weights of a loader's blend, and the loader, whose batches carry their samples' tags.

    Exact, with any number of workers, after `restore_state_rank`, and by segment where samples are packed: energon's
    restore keys name every sample of a batch. Not seen: passes, and samples that the task encoder skips.

    Args:
        loader: Of `get_savable_loader` or `get_loader`. Its batches keep `__restore_key__`, as `Batch` and `Sample` do.
        source: Key of the subflavors that names a dataset's source; by default the name of its folder.
        tokens: Returns the number of tokens of each sample of a batch, of each segment where they are packed.
        options: Of the `SourceMeter`.

    Raises:
        ConfigurationError: The loader blends nothing, or a dataset lacks the subflavor.
    """
    config = loader.config()
    while isinstance(config, Mapping) and config.get("type") != "BlendDataset":
        config = config.get("dataset")
    if config is None:
        raise ConfigurationError("loader must blend datasets, got none with a BlendDataset; give it a metadataset")
    names = [_name(dataset, source) for dataset, _ in config["dataset_weights"]]
    weights = dict.fromkeys(names, 0.0)
    for name, (_, weight) in zip(names, config["dataset_weights"], strict=True):
        weights[name] += weight
    tagged = partial(_tagged, names, tokens, sample_code if options.get("samples") else None)
    return SourceMeter(weights, **options), CountedLoader(loader, tagged)


def _name(config: Any, source: str | None) -> str:
    """Return the source's name of a dataset of the blend."""
    facts: Any = {}
    while isinstance(config, Mapping) and "subflavors" not in facts:
        facts = config.get("map_fn_config") or {}
        facts = facts.get("joined_datasets", [facts])[0]
        config = config.get("dataset")
    name = PurePath(facts.get("_path", "")).name if source is None else (facts.get("subflavors") or {}).get(source)
    if not name:
        raise ConfigurationError(f"each dataset must have the subflavor {source!r}, got {facts}; set it in the blend")
    return str(name)


def _tagged(names: list[str], tokens: Tokens | None, code: Callable[[Any], int] | None, batch: Any) -> Tagged:
    key = batch["__restore_key__"] if isinstance(batch, Mapping) else batch.__restore_key__
    samples = list(_samples(key))
    counts = [0] * len(samples) if tokens is None else map(int, tokens(batch))
    words = [pack_tag(names[index], count) for (index, *_), count in zip(samples, counts, strict=True)]
    tagged = Tagged(otel_train=words, sample=batch)
    return tagged if code is None else tagged._replace(otel_train_sample=list(map(code, samples)))


def _samples(key: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield each sample of a restore key: its dataset's index in the blend, and what distinguishes it there."""
    if "BlendDataset" in key:
        index, *rest = key[key.index("BlendDataset") + 1 :]
        # What stands before the sample's own index, or those of joined ones, are running numbers of maps.
        own = [number for number, part in enumerate(rest) if part == "Webdataset" or isinstance(part, tuple)]
        yield index, *rest[own[0] if own else 0 :]
    else:
        for part in key:
            yield from _samples(part) if isinstance(part, tuple) else ()
