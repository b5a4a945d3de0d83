"""Which ranks share a machine, and their numbers on it: what launchers say of that is often missing or wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple


class NodeClaim(NamedTuple):
    """Claim of one rank about its machine and its local rank."""

    host: str
    boot_id: str
    """Boot id of the kernel; containers on two machines may have the same host name."""
    local_rank: int | None = None
    """LOCAL_RANK of the launcher; None where it sets none."""
    local_world_size: int | None = None


class LocalRank(NamedTuple):
    """Rank of a process among those of its machine."""

    rank: int
    world_size: int


def local_ranks(claims: Sequence[NodeClaim]) -> list[LocalRank]:
    """Return the local rank of each rank.

    The launcher's local ranks stand where all ranks of a machine have one and no two the same. Else the ranks are
    counted in their order: mpirun, mp.spawn and dask set none, Spark may say 0 to each.

    Args:
        claims: Each rank's, by rank.
    """
    by_node: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for index, claim in enumerate(claims):
        by_node[claim.host, claim.boot_id].append(index)
    assigned: dict[int, LocalRank] = {}
    for members in by_node.values():
        given = [claims[index].local_rank for index in members]
        usable = None not in given and len(set(given)) == len(given)
        size = max(len(members), *(claims[index].local_world_size or 0 for index in members))
        for count, (index, local_rank) in enumerate(zip(members, given, strict=True)):
            assigned[index] = LocalRank(local_rank if usable and local_rank is not None else count, size)
    return [assigned[index] for index in range(len(claims))]
