"""A user's configuration becomes facts of the ring."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from otel_train.exceptions import ConfigurationError
from otel_train.step.user_config import MOST_VALUES, config_facts


@dataclass
class Model:
    """A part of a configuration."""

    dim: int = 512
    acts: list[str] = field(default_factory=lambda: ["gelu"])


@pytest.mark.parametrize("config", [{"lr": 0.1, "model": Model()}, Namespace(lr=0.1, model=Model())])
def test_values_keep_their_types(config: Any) -> None:
    """Mappings, dataclasses and namespaces give each value by the keys that lead to it, lists as text."""
    assert config_facts(config) == {"config.lr": 0.1, "config.model.dim": 512, "config.model.acts": "['gelu']"}


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        (True, True),
        (2**70, str(2**70)),
        (float("nan"), "nan"),
        (torch.float32, "torch.float32"),
        (torch.tensor(2), "tensor(2)"),
        (Path("a/b"), "a/b"),
        (None, "None"),
        ({}, "{}"),
        ("two\nlines", "two?lines"),
        ("x" * 600, "x" * 512),
    ],
)
def test_other_values_become_text(value: Any, fact: Any) -> None:
    """What a ring can't carry as it is becomes text of bounded length, which never stops a job."""
    assert config_facts({"key": value}) == {"config.key": fact}


@pytest.mark.parametrize("config", [3, "text", [1], dict.fromkeys(map(str, range(MOST_VALUES + 1)), 0)])
def test_unusable_config_is_error(config: Any) -> None:
    """What has no names, or too many values, is an error that says what to give."""
    with pytest.raises(ConfigurationError, match="config must"):
        config_facts(config)


def test_endless_config_is_error() -> None:
    """A configuration that holds itself is an error, not an endless one."""
    config: dict[str, Any] = {}
    config["self"] = config
    with pytest.raises(ConfigurationError, match="nested at most"):
        config_facts({"x": 1, **config})
