"""A subclass made for one object, whose results have tags."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from typing import Any

import pytest

from otel_train.integrations.tagging_class import tag_results


class Rows:
    """A dataset of a user's own."""

    def __init__(self, *rows: str) -> None:
        self.rows = rows
        self.position = 0

    def __getitem__(self, index: int) -> str:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)


class SavedRows(Rows):
    """One with its own way to be pickled."""

    def __getstate__(self) -> Any:
        return {"rows": self.rows, "position": 7}


class ReducedRows(Rows):
    """One that says how it is made."""

    def __reduce__(self) -> Any:
        return type(self), tuple(self.rows)


def tagged(rows: Any, row: str, index: int) -> Any:
    """Return a row with what it is tagged with."""
    return row, index, len(rows)


@pytest.mark.parametrize("kind", [Rows, SavedRows, ReducedRows])
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda rows: pickle.loads(pickle.dumps(rows))])
def test_copies_go_on_tagging(kind: type[Rows], copied: Any) -> None:
    """A copy, pickled or not, is of the same class and tags too; another object of the class doesn't."""
    rows = kind("a", "b")
    tag_results(rows, "__getitem__", tagged)
    other = copied(rows)
    assert [rows[1], other[1], kind("a", "b")[1]] == [("b", 1, 2), ("b", 1, 2), "b"]
    assert isinstance(other, kind)


def test_tagged_again_is_tagged_once() -> None:
    """A second tag of a method replaces the first, one of another method stands beside it, and both are pickled."""
    rows = Rows("a", "b")
    tag_results(rows, "__getitem__", lambda *_: "never")
    tag_results(rows, "__len__", one_more)
    tag_results(rows, "__getitem__", tagged)
    assert [other[1] for other in (rows, pickle.loads(pickle.dumps(rows)))] == [("b", 1, 3)] * 2


def one_more(_: Any, length: int) -> int:
    """Return another length."""
    return length + 1


def test_spawned_process_goes_on_tagging() -> None:
    """A worker that is spawned, with none of this process's classes, tags too."""
    rows = Rows("a", "b")
    tag_results(rows, "__getitem__", tagged)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(Rows.__getitem__, (rows, 1)) == "b"
        assert pool.apply(first_row, (rows,)) == ("a", 0, 2)


def first_row(rows: Any) -> Any:
    """Return the first row as it comes."""
    return rows[0]
