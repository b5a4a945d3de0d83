"""Fixtures of the tests of `send`."""

from tests.support.rank_ring import rank, receiver

__all__ = ["rank", "receiver"]
