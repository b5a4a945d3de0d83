"""Fixtures of the sidecar's tests."""

from tests.support.rank_ring import rank, receiver

__all__ = ["rank", "receiver"]
