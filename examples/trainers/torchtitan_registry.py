"""A config registry of torchtitan whose job logs the cluster's values, and the mix that it trains on.

Run it: torchrun --nproc-per-node 8 -m torchtitan.train --module examples.trainers.torchtitan_registry --config mixed
It needs what tests/integrations/requirements/titan.in names, and accelerators.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import default_collate
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.models.llama3.config_registry import llama3_debugmodel

import otel_train
from otel_train.integrations import torchtitan


class MixedLoader(BaseDataLoader):  # type: ignore[misc]  # torchtitan is not there when types are checked
    """A loader that draws each row's source by weight; put your own sources in place of random numbers."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):  # type: ignore[misc]
        """The loader has no options."""

    def __init__(self, *, dp_rank: int, seq_len: int, local_batch_size: int, **_others: Any) -> None:
        self.seq_len, self.batch_size = seq_len, local_batch_size
        self.choice = random.Random(dp_rank)
        self.meter = otel_train.SourceMeter({"code": 1, "prose": 3})

    def __iter__(self) -> Iterator[Any]:
        """Yield the model's inputs, with the tags among them, and the labels."""
        tags = {source: self.meter.tag(source, tokens="input") for source in self.meter.modalities}
        while True:
            sources = self.choice.choices(list(tags), [1, 3], k=self.batch_size)
            rows = [tags[source]({"input": torch.randint(1000, (self.seq_len,))}) for source in sources]
            batch = default_collate(rows)
            yield (
                {**batch, "positions": torch.arange(self.seq_len).expand_as(batch["input"])},
                batch["input"].roll(-1, 1),
            )

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the numbers are random."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from anywhere."""


def mixed() -> Any:
    """Return the configuration of a small Llama 3 on two sources."""
    config = llama3_debugmodel()
    config.dataloader = MixedLoader.Config()
    return torchtitan.track(config, meter=lambda trainer: trainer.dataloader.meter)
