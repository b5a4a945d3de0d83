"""lhotse: cuts that carry their tag in a custom field, through samplers, augmentation and padding, to the batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch.utils.data import Dataset

from otel_train.mixing import SourceMeter, Tag, Tagged
from otel_train.mixing.tags import SAMPLE_KEY, TAG_KEY


def track(
    cuts: Mapping[str, Any],
    weights: Mapping[str, float] | None = None,
    *,
    tokens: Callable[[Any], int] | None = None,
    stop_early: bool = False,
    seed: int | str = 0,
    **options: Any,
) -> tuple[SourceMeter, Any]:
    """Mix two or more `CutSet` as `CutSet.mux` does, and return the meter and the mixed one.

    Exact, with any sampler and number of workers, and after a sampler's `load_state_dict`; a cut that was made of
    several is so many picks. Passes are those of `CutSet.repeat`, unless it keeps the ids. Not seen: what is dropped.

    Args:
        cuts: Cuts by the source's name.
        weights: Weight by name; equal ones by default.
        tokens: Returns the number of tokens of a cut, such as its frames.
        stop_early: Of `CutSet.mux`.
        seed: Of `CutSet.mux`. Its default draws alike on each rank: right under a sampler that deals out batches.
        options: Of the `SourceMeter`.
    """
    from lhotse import CutSet  # noqa: PLC0415  # only who uses lhotse has it
    from lhotse.lazy import LazyMapper  # noqa: PLC0415

    weights = dict.fromkeys(cuts, 1.0) if weights is None else weights
    meter = SourceMeter(weights, **options)
    tags = {name: meter.tag(name, tokens=tokens, repeat=_repeat, sample=_key) for name in cuts}
    tagged = [CutSet(LazyMapper(part, partial(_with_tag, tags[name]))) for name, part in cuts.items()]
    return meter, CutSet.mux(*tagged, weights=[weights[name] for name in cuts], stop_early=stop_early, seed=seed)


@dataclass
class WithTags(Dataset[Any]):
    """A lhotse dataset, which makes a batch of a `CutSet`; the batches carry the tags of their cuts."""

    dataset: Any

    def __getitem__(self, cuts: Any) -> Tagged:
        customs = [part.custom for cut in cuts for part in _parts(cut) if TAG_KEY in (part.custom or ())]
        tags = {key: [custom[key] for custom in customs] for key in (TAG_KEY, SAMPLE_KEY)}
        return Tagged(sample=self.dataset[cuts], **tags)


def _with_tag(tag: Tag, cut: Any) -> Any:
    row = tag(cut)  # a mixed cut's custom fields are, as lhotse has it, those of its first part that is no padding
    own = next(part for part in _parts(cut) if type(part).__name__ != "PaddingCut")
    fields = {TAG_KEY: row.otel_train, SAMPLE_KEY: row.otel_train_sample}
    tagged = replace(own, custom={**(own.custom or {}), **fields})
    if own is cut:
        return tagged
    return replace(cut, tracks=[replace(part, cut=tagged) if part.cut is own else part for part in cut.tracks])


def _parts(cut: Any) -> list[Any]:
    return [track.cut for track in vars(cut)["tracks"]] if "tracks" in vars(cut) else [cut]


def _repeat(cut: Any) -> int:
    return int((re.findall(r"_repeat(\d+)$", getattr(cut, "id", "")) or [0])[0])


def _key(cut: Any) -> str:
    return re.sub(r"_repeat\d+$", "", str(getattr(cut, "id", cut)))
