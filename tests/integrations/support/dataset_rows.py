"""Whether each row of our own dataset's streams was trained on once."""

from __future__ import annotations

import json
from collections import defaultdict

from tests.integrations.support.case_loop import STEPS
from tests.integrations.support.loader_job import RANKS, Outcome

BATCH = 8


def check_each_row_once(outcome: Outcome) -> None:
    """Check that each stream's rows came in order, none twice and none lost, and that the loop's position is saved."""
    streams: list[tuple[int, int]] = []
    for keys, index in keys_of_ranks(outcome):
        assert index == len(keys) == STEPS * BATCH
        by_stream = defaultdict[tuple[int, int], list[int]](list)
        for key in keys:
            row, source = divmod(key, 2)
            by_stream[source, row // 1000].append(row % 1000)
        assert all(rows == list(range(len(rows))) for rows in by_stream.values())
        streams += by_stream
    assert sorted(streams) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def keys_of_ranks(outcome: Outcome) -> list[tuple[list[int], int]]:
    """Return what identifies the rows that each rank was trained on, and the number of picks that it saved."""
    files = [outcome.folder / f"keys{rank}.json" for rank in range(RANKS)]
    return [(keys, index) for keys, index in (json.loads(file.read_text()) for file in files)]


def refusals(outcome: Outcome) -> list[str]:
    """Return the error that each rank's loop ended with."""
    return [(outcome.folder / f"refusal{rank}").read_text() for rank in range(RANKS)]
