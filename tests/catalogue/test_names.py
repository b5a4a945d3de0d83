"""Cluster-wide names: made from a rank's name, and led back to it, for any key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_train.catalogue import cluster_name, rank_name


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
