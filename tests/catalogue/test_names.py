"""Names that follow from a rank's name, and lead back to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_train.catalogue import (
    HEADLINE,
    HEADLINE_KEYS,
    cluster_name,
    rank_name,
    wandb_key,
)


def test_fifteen_headline_keys() -> None:
    """The eleven metrics and the four maxima beside the ledger's."""
    assert len(HEADLINE) == 11
    assert len(set(HEADLINE_KEYS)) == 15


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1).filter(lambda x: rank_name(x) is None)
)
def test_cluster_name_is_invertible(name: str) -> None:
    """No name is lost, whatever a user's key looks like."""
    if rank_name(cluster_name(name)) is not None:
        assert rank_name(cluster_name(name)) == name
    assert rank_name(cluster_name("train/loss")) == "train/loss"


@pytest.mark.parametrize(
    ("name", "attribute", "key"),
    [
        ("ledger.evictions", "", "ledger/evictions"),
        ("ledger.evictions_max", "", "ledger/evictions_max"),
        ("ledger.evictions_max_rank", "", "ledger/evictions_max_rank"),
        ("stream_mixing.tokens", "code", "stream_mixing/tokens/code"),
        ("ledger.reuse_distance", "", None),
        ("train/loss_max", "", "train/loss_max"),
    ],
)
def test_wandb_keys_follow_names(name: str, attribute: str, key: str | None) -> None:
    """Siblings and modalities get the row's key with their suffix; a user's scalar keeps its own."""
    assert wandb_key(name, attribute) == key


@given(st.lists(st.sampled_from(["cluster", "a", "b", ".", "/", "_max"]), min_size=1, max_size=6).map("".join))
def test_names_are_inverse(name: str) -> None:
    """The two functions are inverse where they are defined, the word `cluster` in a key included."""
    made_from = rank_name(name)
    if made_from is None:
        assert rank_name(cluster_name(name)) == name
    else:
        assert cluster_name(made_from) == name


@pytest.mark.parametrize("name", ["cluster/a/b", "cluster.a", "a/cluster.b", "a.b.cluster", "cluster"])
def test_misplaced_cluster_is_no_marker(name: str) -> None:
    """The word in another position, or with another separator, marks nothing."""
    assert rank_name(name) is None
