"""A program of a test that hangs."""

from __future__ import annotations

import sys

import pytest

from tests.support.environment import clean_environment
from tests.support.hung_processes import output_of

HANGS = """
import os, time

def waits_for_ever(role):
    print(role, flush=True)
    while True:
        time.sleep(1)

pid = os.fork()
waits_for_ever("parent" if pid else "child")
"""


def test_hung_program_shows_stacks() -> None:
    """Where each process was is in the error, and none outlives it."""
    shown = ""
    for seconds in (1, 4, 16, 64):  # a busy machine takes a while to begin
        with pytest.raises(AssertionError, match=f"had not ended after {seconds} s") as failure:
            output_of([sys.executable, "-c", HANGS], clean_environment(), seconds)
        shown = str(failure.value)
        if "child" in shown and "parent" in shown:
            break
    assert shown.count("in waits_for_ever") >= 2
