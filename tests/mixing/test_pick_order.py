"""The order of picks: equal signs for equal orders, and how many ranks have one."""

from __future__ import annotations

import math
import random
from statistics import mean

import pytest
import torch

from otel_train.catalogue import rows
from otel_train.mixing import MixingMeter
from otel_train.mixing.pick_order import extended, signs_of, value_of_batch
from tests.support.mixing_schemes import Scheme, alike_ranks, in_groups, independent_rows, mixed_job

KEY = rows.ALIKE_RANKS.wandb_key


def test_orders_once_different_stay_different() -> None:
    """After one pick of another modality, or two that changed places, the signs go apart and don't meet again."""

    def signs(intervals: list[list[int]]) -> list[tuple[float, ...]]:
        """Return what an order of picks contributes, interval by interval."""
        order, contributed = 0, []
        for picks in intervals:
            for pick in picks:
                order = extended(order, pick)
            contributed.append(signs_of(order))
        return contributed

    rng = random.Random(1)
    same = [rng.choices(range(3), k=8) for _ in range(1600)]
    for first in ([1, 0], [0, 0], [300, 0]):
        one, other = signs([[0, 1], *same]), signs([first, *same])
        assert 50 < sum(a == b for a, b in zip(one, other, strict=True)) < 150  # 1 in 16 by chance
    assert signs(same) == signs(same)


@pytest.mark.parametrize(
    ("scheme", "size"), [(independent_rows, 1), (in_groups(2), 2), (in_groups(4), 4), (alike_ranks, 8)]
)
def test_mean_is_size_of_groups(scheme: Scheme, size: int) -> None:
    """Of 8 ranks in groups of one order the mean over the steps is a group's size; of 8 alike every step's value is."""
    history = mixed_job(scheme, weights={"a": 1, "b": 3}, ranks=8, steps=400)
    values = history.cluster.column(KEY)
    assert mean(values) == pytest.approx(size, abs=5 * size * math.sqrt(2 / 4 / 400) * (size < 8))
    assert {len(group) for group in history.order_groups} == {size}


def test_interval_without_picks_says_nothing() -> None:
    """A rank that picks nothing takes no part, or its old signs would count again."""
    meter = MixingMeter(1, ["a"], {"a": 1})
    meter.open(0, "a")
    meter.pick(0)
    assert meter.drain_step_metrics()[KEY] == 1
    assert meter.drain_step_metrics()[KEY] == 0


def test_batches_have_an_order() -> None:
    """A tensor of indices counts in its order, whatever their number."""
    indices = torch.arange(5000) % 300

    def signs(batch: torch.Tensor) -> list[tuple[float, ...]]:
        order, contributed = 0, []
        for _ in range(20):
            order = extended(order, value_of_batch(batch))
            contributed.append(signs_of(order))
        return contributed

    assert signs(indices) == signs(indices.clone())
    assert signs(indices) != signs(indices.flip(0))
    assert signs(indices) != signs(torch.cat([indices, torch.tensor([0])]))
