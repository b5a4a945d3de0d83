"""A user's configuration becomes facts of the ring."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
import torch

from otel_train.catalogue import MOST_NESTED
from otel_train.exceptions import ConfigurationError
from otel_train.ring.facts import usable_facts
from otel_train.step.user_config import MOST_VALUES, config_facts


@dataclass
class Model:
    """A part of a configuration."""

    dim: int = 512
    acts: list[str] = field(default_factory=lambda: ["gelu"])


class Schedule(str, Enum):  # noqa: UP042  # as transformers has them, and Python 3.10
    """An enumeration of text."""

    COSINE = "cosine"


class Unprintable:
    """An object whose text raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


@dataclass
class Holder:
    """A part of a configuration that has what can't be copied, and a field without a value."""

    lock: Any = field(default_factory=Lock)
    unset: int = field(init=False)


@pytest.mark.parametrize("config", [{"lr": 0.1, "model": Model()}, Namespace(lr=0.1, model=Model())])
def test_values_keep_their_types(config: Any) -> None:
    """Mappings, dataclasses and namespaces give each value by the keys that lead to it."""
    assert config_facts(config) == {"config.lr": 0.1, "config.model.dim": 512, "config.model.acts": ["gelu"]}


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        (None, None),
        ({}, {}),
        ((), []),
        ((1, [True, None, 0.5], range(2)), [1, [True, None, 0.5], [0, 1]]),
        ({"b", "a"}, ["a", "b"]),
        (torch.Size([2, 3]), [2, 3]),
        ([{"kind": "linear", 1: Path("x")}, Model()], [{"kind": "linear", "1": "x"}, {"dim": 512, "acts": ["gelu"]}]),
        ([float("nan"), 2**70, "a\n"], ["nan", str(2**70), "a?"]),
        (["x" * 508], ["x" * 508]),
        (["x" * 509], f"['{'x' * 509}']"[:512]),
        (range(10**9), str(list(range(200)))[:512]),
    ],
)
def test_lists_stay_lists(value: Any, fact: Any) -> None:
    """Lists, mappings in them, None and empty mappings keep their form in a ring, until their JSON is too long."""
    facts = config_facts({"key": value})
    assert facts == {"config.key": fact} == usable_facts(facts)


def test_endless_list_is_cut() -> None:
    """A list that holds itself is cut where it is nested too deep."""
    endless: list[Any] = [1]
    endless.append(endless)
    assert str(config_facts({"key": endless})["config.key"]).count("[") == MOST_NESTED


SECRETS: dict[str, Any] = {
    "api_key": "s3cr3t",
    "OPENAI_API_KEY": "s3cr3t",
    "hfToken": "s3cr3t",
    "token": "s3cr3t",
    "password": 5,
    "login": {"client_secret": "s3cr3t", "credentials": {"user": "s3cr3t"}},
    "stores": [{"kind": "s3", "access_key": "s3cr3t"}],
}
NO_SECRETS: dict[str, Any] = {
    "tokens": "3B",
    "pad_token": "<pad>",
    "max_tokens": 9,
    "hub_token": "<HUB_TOKEN>",
    "use_auth_token": True,
    "api_key": None,
    "sort_key": "length",
    "tokenizer": "bpe",
    "secretary": "x",
}


def test_secrets_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """What is a secret by its name goes nowhere, also within lists, and one warning names it without its value."""
    assert config_facts({"lr": 0.1, **SECRETS}) == {"config.lr": 0.1, "config.stores": [{"kind": "s3"}]}
    [record] = caplog.records
    assert "hfToken, token, password, login.client_secret" in record.getMessage()
    assert "s3cr3t" not in record.getMessage()


def test_other_names_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    """A trainer's tokens and keys, and what is no secret any more, stay; nothing warns."""
    assert config_facts(NO_SECRETS) == {f"config.{name}": value for name, value in NO_SECRETS.items()}
    assert not caplog.records


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        (True, True),
        (np.bool_(1), True),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (10**400, str(10**400)),
        (2**70, str(2**70)),
        (float("nan"), "nan"),
        (torch.float32, "torch.float32"),
        (torch.tensor(2), "tensor(2)"),
        (Path("a/b"), "a/b"),
        (Schedule.COSINE, "cosine"),
        ("two\nlines", "two?lines"),
        ("x" * 600, "x" * 512),
    ],
)
def test_other_values_become_text(value: Any, fact: Any) -> None:
    """What a ring can't carry as it is becomes text of bounded length, which never stops a job."""
    assert config_facts({"key": value}) == {"config.key": fact}


def test_odd_objects_stop_no_job() -> None:
    """What can't be copied, has no value or raises when it is asked for its text costs at most its own text."""
    lock = Lock()
    facts = config_facts(Holder(lock))
    assert facts == {"config.lock": str(lock)}
    assert config_facts({"key": 10**400}) == {"config.key": str(10**400)}
    assert "Unprintable object" in str(config_facts({"key": [Unprintable()]})["config.key"])


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
