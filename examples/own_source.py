"""Measure a part of your own: a class with `metrics` and `drain_step_metrics` is a source.

Run it on two ranks: torchrun --nproc-per-node 2 examples/own_source.py
"""

from __future__ import annotations

import random

import torch.distributed as dist

import otel_train


class FeatureCache:
    """A cache that counts what it does between two log steps."""

    metrics = (
        otel_train.Scalar("cache/lookups", "sum", unit="{lookup}"),
        otel_train.Scalar("cache/hit_rate", unit="1"),
        otel_train.Scalar("cache/entries", "max", unit="{entry}"),
    )

    def __init__(self) -> None:
        self._entries: dict[int, float] = {}
        self._hits = self._lookups = 0

    def get(self, key: int) -> float:
        """Return the feature of a key, from the cache if it is there."""
        self._lookups += 1
        self._hits += key in self._entries
        return self._entries.setdefault(key, key**0.5)

    def drain_step_metrics(self, step: int | None = None) -> dict[str, object]:  # noqa: ARG002  # the protocol's
        """Return what was counted since the last call, and count from zero on."""
        hits, lookups, self._hits, self._lookups = self._hits, self._lookups, 0, 0
        return {
            "cache/lookups": lookups,
            "cache/hit_rate": (hits, lookups),  # of all ranks' lookups together, not a mean of means
            "cache/entries": len(self._entries),
        }


def main() -> None:
    """Look up random keys, and print the hit rate of all ranks together."""
    dist.init_process_group("gloo")
    cache, keys = FeatureCache(), random.Random(dist.get_rank())
    with otel_train.init(sources=[cache], blocking=True) as telemetry:
        for step in range(1, 31):
            for _ in range(100 * (1 + dist.get_rank())):
                cache.get(keys.randrange(1000))
            values = telemetry.step(step)  # with blocking=True the cluster's values of this step
        if dist.get_rank() == 0 and values:
            print(f"{values['cache/hit_rate']:.0%} of {values['cache/lookups']:.0f} lookups were hits")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
