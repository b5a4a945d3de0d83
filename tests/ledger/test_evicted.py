"""The ring of evicted keys: reuse distances, and the order of evictions."""

import torch

from otel_train.ledger.evicted import EvictedKeys
from otel_train.ledger.hashing import keys_of


def test_reuse_distances_precede_the_call() -> None:
    """Each key's reuse distance follows from its position before the call, whichever others leave with it."""
    keys = keys_of(torch.arange(2500))
    ring, order = EvictedKeys(len(keys)), torch.randperm(len(keys), generator=torch.Generator().manual_seed(0))
    ring.add(keys)
    assert ring.take(keys[order]).tolist() == (len(keys) - order).tolist()
    assert len(ring) == 0


def test_evicted_again_moves_to_end() -> None:
    """The ring keeps one entry for a key, and drops the oldest eviction first."""
    ring, seen = EvictedKeys(3), []
    for batch in ([1, 2, 3], [2], [4], [5, 6, 7, 8]):
        ring.add(torch.tensor(batch))
        seen.append(list(ring))
    assert seen == [[1, 2, 3], [1, 3, 2], [3, 2, 4], [6, 7, 8]]
