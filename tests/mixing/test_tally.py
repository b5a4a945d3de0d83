"""Sums over a batch of tags: few by Python, many by torch, and both as the definition says."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_train.mixing.tags import PADDING, pack_tag, source_code
from otel_train.mixing.tally import Tallier

SOURCES = ("a", "b", "c", "elsewhere")
ROWS = st.lists(
    st.one_of(
        st.none(),
        st.tuples(st.sampled_from(SOURCES), st.integers(0, 2**27 - 1), st.sampled_from([0, 1, 127, 255, 256])),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@example(rows=[("a", 2**27 - 1, 0), None, ("elsewhere", 1, 255), ("c", 7, 1), ("a", 0, 0)], passes=[0, -1, 0])
@given(rows=ROWS, passes=st.lists(st.sampled_from([-1, 0, 1, 200, 255]), min_size=3, max_size=3))
def test_sums_match_definitions(rows: list[tuple[str, int, int] | None], passes: list[int]) -> None:
    """Rows, tokens, last positions, switches and passes of known sources, in any order, with padding in between."""
    words = [PADDING if row is None else pack_tag(row[0], row[1], row[2]) for row in rows]
    tallier = Tallier([source_code(source) for source in SOURCES[:3]])
    few = tallier.add_up_few(words, passes)
    many = tallier.add_up_many(torch.tensor(words, dtype=torch.int64), passes)
    known = [row for row in rows if row is not None and row[0] != "elsewhere"]
    order = [SOURCES.index(row[0]) for row in known]
    assert list(few.indices) == many.indices.tolist() == order  # type: ignore[union-attr]
    assert few.counts == many.counts == [order.count(index) for index in range(3)]
    assert few.tokens == many.tokens == [sum(row[1] for row in known if row[0] == name) for name in SOURCES[:3]]
    assert (
        few.last == many.last == [max((at for at, own in enumerate(order) if own == i), default=-1) for i in range(3)]
    )
    assert few.switches == many.switches == sum(one != next_ for one, next_ in pairwise(order))
    assert few.unknown == many.unknown == sum(row is not None for row in rows) - len(known)
    assert few.passes == many.passes
    for index, passed in enumerate(few.passes):
        ahead = [(row[2] - max(0, passes[index])) % 256 for row in known if row[0] == SOURCES[index]]
        limit = 256 if passes[index] < 0 else 128
        assert passed == max((step for step in ahead if step < limit), default=0)


@pytest.mark.parametrize("sources", [1, 2, 17, 512])
def test_any_number_of_sources(sources: int) -> None:
    """Each of many sources is counted as its own, however their hashes lie."""
    names = [f"source {index}" for index in range(sources)]
    tallier = Tallier([source_code(name) for name in names])
    tally = tallier.add_up_many(torch.tensor([pack_tag(name) for name in names] * 2), [0] * sources)
    assert tally.counts == [2] * sources
