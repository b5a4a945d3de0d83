"""The share of repeats from a sketch, against the keys that the ranks really have."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_train.catalogue import Layout, rows
from otel_train.catalogue.repeat_sketch import CELLS, LEFT_OUT, LEVELS, WIDTH, code_of, repeated_share
from otel_train.splitmix import mix


def sketch(*ranks: set[int]) -> list[float]:
    """Return the SUM of the sketches of ranks with these keys."""
    cells = [0.0] * WIDTH
    for keys in ranks:
        for key in keys:
            cell, code = code_of(key)
            cells[cell] += code
    return cells


@given(st.lists(st.sets(st.integers(0, 400), max_size=60), min_size=1, max_size=9), st.integers(0, 2**64 - 1))
def test_sketch_finds_lone_keys(ranks: list[set[int]], seed: int) -> None:
    """Any keys on any ranks, in any order of these: the share is that of the keys that have a cell of their own."""

    def share_of_lone_keys(*ranks: set[int]) -> float:
        """Return what the sketch must give: over the keys with a cell of their own, from the keys themselves."""
        copies = Counter(key for keys in ranks for key in keys)
        owners: dict[int, list[int]] = {}
        for key in copies:
            owners.setdefault(code_of(key)[0], []).append(key)
        lone: list[int] = []
        for level in reversed(range(LEVELS)):
            cells = [owners.get(level * CELLS + cell, []) for cell in range(CELLS)]
            if sum(len(keys) < 2 for keys in cells) < 3:
                break
            lone += [keys[0] for keys in cells if len(keys) == 1]
        return 1 - len(lone) / sum(copies[key] for key in lone) if lone else 0.0

    hashed = [{mix(key + seed) for key in keys} for keys in ranks]
    count = sum(map(len, hashed))
    share = repeated_share(count, 0, sketch(*hashed))
    assert share == pytest.approx(share_of_lone_keys(*hashed), abs=1e-12)
    assert repeated_share(count, 0, sketch(*reversed(hashed))) == share


@pytest.mark.parametrize("size", [1, 100, 4000])
@pytest.mark.parametrize("ranks", [2, 8, 64, 4095])
def test_equal_ranks_are_exact(ranks: int, size: int) -> None:
    """Of the rows of n ranks that read the same samples one in n is the first, up to the most copies of a cell."""
    cells = [ranks * cell for cell in sketch({mix(key) for key in range(size)})]
    assert repeated_share(ranks * size, 0, cells) == pytest.approx(1 - 1 / ranks)


@pytest.mark.parametrize("size", [1, 10, 1000, 100_000])
def test_distinct_keys_are_no_repeats(size: int) -> None:
    """However many keys there are, different ones are not taken for copies."""
    assert repeated_share(size, 0, sketch({mix(key) for key in range(size)})) == 0


def test_mean_estimate_is_near() -> None:
    """Over many windows the mean is a tenth too small at most, for ranks of which every other row is another's too."""
    estimates = []
    for window in range(400):
        common = {mix(window << 32 | key) for key in range(100)}
        own = [{mix(window << 32 | rank << 16 | key) for key in range(100)} for rank in (1, 2)]
        estimates.append(repeated_share(400, 0, sketch(common | own[0], common | own[1])))
    assert math.fsum(estimates) / len(estimates) == pytest.approx(0.25, rel=0.12)


def test_own_repeats_add_to_shared_ones() -> None:
    """Two ranks with the same samples, each of them twice: three of four rows are repeats."""
    keys = {mix(key) for key in range(50)}
    assert repeated_share(200, 100, sketch(keys, keys)) == pytest.approx(0.75)


def test_left_out_level_is_not_used() -> None:
    """What one rank leaves out can't be compared: of fuller levels nothing is said."""
    keys = {mix(key) for key in range(40)}
    sparse = {key for key in keys if key % 16 == 0}
    cells = sketch(keys, sparse)
    for level in (0, 1):
        cells[level * CELLS] += LEFT_OUT
    assert repeated_share(80, 0, cells) == 0.5


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_damaged_sketch_costs_itself(wrong: float) -> None:
    """A number that is not finite gives NaN; a finite one that no rank has sent gives a share."""
    layout = Layout((rows.REPEATS,))
    assert math.isnan(layout.by_key([8.0, 0.0, wrong, *[0.0] * (WIDTH - 1)], [])["stream_mixing/repeats"])
    assert 0 <= repeated_share(8, 0, [-1e300, 1e300, 2**41 + 5] * WIDTH) <= 1


def test_no_keys_are_no_repeats() -> None:
    """Ranks without rows, and rows of which none is in the sketch."""
    assert repeated_share(0, 0, [0.0] * WIDTH) == 0
    assert repeated_share(8, 2, [0.0] * WIDTH) == 0.25
