"""The adapters themselves: their length, and what needs no package but torch."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from torch.utils.data import BatchSampler, RandomSampler, WeightedRandomSampler

from otel_train.exceptions import ConfigurationError
from otel_train.integrations import torch_datasets
from tests.support.torchrun import ROOT

FOLDER = ROOT / "otel_train" / "integrations"
TRAINERS = ("accelerate", "composer", "ignite", "lightning", "torchtitan", "transformers")
SHARED = ("fit_session", "lightning_results", "logged_fit")
"""What adapters are made of."""
WEIGHTED = WeightedRandomSampler([3.0] * 2 + [1 / 3] * 6, 8)
SOURCES = {"code": [{"x": 0}] * 2, "prose": [{"x": 1}] * 6}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_adapters_stay_short(path: Path) -> None:
    """A loader's adapter has 80 lines at most, a trainer's 120: what needs more belongs to the meter or the session."""
    lines = path.read_text().splitlines()
    assert len(lines) <= (120 if path.stem in TRAINERS else 80) or path.stem in SHARED


def test_example_of_datasets_holds() -> None:
    """The example in the docstring gives what it says."""
    failed, run = doctest.testmod(torch_datasets)
    assert (failed, run) == (0, 6)


@pytest.mark.parametrize(
    ("sampler", "share"),
    [
        (None, 0.75),
        (RandomSampler(range(8)), 0.75),
        (WEIGHTED, 0.25),
        (BatchSampler(WEIGHTED, 4, drop_last=False), 0.25),
    ],
)
def test_targets_are_the_samplers(sampler: object, share: float) -> None:
    """Targets are a sampler's weights, added up by source, else the lengths."""
    meter, dataset = torch_datasets.track(SOURCES, sampler)
    meter.count(dataset[7])
    assert meter.drain_step_metrics()["stream_mixing/modality_target/prose"] == pytest.approx(share)


def test_sampler_of_other_rows_is_refused() -> None:
    """A sampler that has weights for other rows than the sources' is an error with both numbers."""
    with pytest.raises(ConfigurationError, match=r"weights for 3 rows.* have 8"):
        torch_datasets.track(SOURCES, WeightedRandomSampler([1.0] * 3, 3))


def test_iterable_source_is_refused() -> None:
    """A dataset that can't be indexed is an error that names it and what to use."""
    with pytest.raises(ConfigurationError, match=r"'code' must be map-style, got list_iterator"):
        torch_datasets.track({"code": iter([1])})
