"""Which ranks share a machine, and their numbers on it."""

from __future__ import annotations

import pytest

from otel_train.ring import boot_id
from otel_train.step.local_ranks import NodeClaim, local_ranks


@pytest.mark.parametrize(
    ("claims", "places"),
    [
        ([("a", "1", 1, 2), ("a", "1", 0, 2)], [(1, 2), (0, 2)]),
        ([("a", "1", 1, 4), ("b", "2", 3, 4)], [(1, 4), (3, 4)]),
        ([("a", "1", None, None), ("b", "2", None, None), ("a", "1", None, None)], [(0, 2), (0, 1), (1, 2)]),
        ([("a", "1", 0, 1), ("a", "1", 0, 1)], [(0, 2), (1, 2)]),
        ([("a", "1", 3, None), ("a", "1", None, None)], [(0, 2), (1, 2)]),
        ([("box", "1", None, None), ("box", "2", None, None)], [(0, 1), (0, 1)]),
    ],
    ids=["launcher", "group of some", "silent launcher", "all are 0", "one says", "same host name"],
)
def test_local_ranks_follow_launcher(
    claims: list[tuple[str, str, int | None, int | None]], places: list[tuple[int, int]]
) -> None:
    """Local ranks are the launcher's where they can be right, and counted elsewhere, on each machine by itself."""
    assert local_ranks([NodeClaim(*claim) for claim in claims]) == places


def test_boot_id_identifies_machine() -> None:
    """Two containers of one machine have the same boot id."""
    assert len(boot_id()) == 36
