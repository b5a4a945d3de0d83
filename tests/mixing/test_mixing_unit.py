"""The unit and the scope of a mixer: what is one draw, and whose mix is judged."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from otel_train.catalogue import rows
from otel_train.exceptions import ConfigurationError
from otel_train.mixing import MixingMeter, SourceMeter
from otel_train.mixing.tags import pack_tag

WEIGHTS = {"a": 1, "b": 3}


def opened(**options: Any) -> MixingMeter:
    """Return a meter of two sources."""
    meter = MixingMeter(2, list(WEIGHTS), WEIGHTS, **options)
    for slot, source in enumerate(WEIGHTS):
        meter.open(slot, source)
    return meter


def count(meter: MixingMeter | SourceMeter, slot: int, size: int) -> None:
    """Count a batch of one source."""
    if isinstance(meter, MixingMeter):
        meter.pick(slot, rows=size)
    else:
        meter.count({"otel_train": torch.tensor([pack_tag("ab"[slot])] * size)})


@pytest.mark.parametrize("size", [1, 8, 200])
@pytest.mark.parametrize("save", [False, True])
@pytest.mark.parametrize("make", [opened, lambda **options: SourceMeter(WEIGHTS, **options)])
def test_batch_is_one_draw(make: Any, size: int, *, save: bool) -> None:
    """Switches are counted between batches, and 48 batches without a source of share 1/4 are chance, 49 are not."""
    meter = make(unit="batch")
    for slot in (0, 1, 1, 0):
        count(meter, slot, size)
    values = meter.drain_step_metrics()
    assert values[rows.PICKS.wandb_key] == 4 * size
    assert values[rows.SWITCH_RATE.wandb_key] == 2 / 3
    for misses in range(1, 50):
        count(meter, 1, size)
        if save:
            state, meter = meter.state_dict(), make(unit="batch")
            meter.load_state_dict(state)
        values = meter.drain_step_metrics()
        assert values[rows.STARVED_READERS.wandb_key] == (misses == 49)
        assert values[rows.SWITCH_RATE.wandb_key] == (misses == 1)


def test_mixed_batch_is_a_draw_a_run() -> None:
    """Rows of several sources in a batch that should hold one are as many draws as there are runs of a source."""
    meter = SourceMeter(WEIGHTS, unit="batch")
    meter.count({"otel_train": torch.tensor([pack_tag(source) for source in "aaabbbba"])})
    assert meter.drain_step_metrics()[rows.SWITCH_RATE.wandb_key] == 1
    assert meter.facts["mixing.unit_rows"] == 8 / 3


def test_cluster_scope_starves_no_rank() -> None:
    """A rank that never gets a source is as it should be, where all ranks together hold the mix."""
    for scope, starved in (("rank", 1), ("cluster", 0)):
        meter = opened(scope=scope)
        meter.pick(1, rows=1000)
        assert meter.drain_step_metrics()[rows.STARVED_READERS.wandb_key] == starved


def test_facts_tell_unit_and_scope() -> None:
    """A ring says how its source mixes."""
    meter = opened(unit="batch", scope="cluster")
    assert opened().facts["mixing.unit_rows"] == 1
    meter.pick(0, rows=0)
    meter.pick(0, rows=8)
    meter.pick(1, rows=4)
    names = ("mixing.unit", "mixing.scope", "mixing.unit_rows")
    assert [meter.facts[name] for name in names] == ["batch", "cluster", 6]


@pytest.mark.parametrize(("name", "value"), [("unit", "rows"), ("unit", None), ("scope", "node"), ("scope", ["rank"])])
def test_wrong_unit_raises(name: str, value: Any) -> None:
    """The message has the choices."""
    with pytest.raises(ConfigurationError, match=f"^{name} must be one of (row, batch|rank, cluster), got"):
        opened(**{name: value})
