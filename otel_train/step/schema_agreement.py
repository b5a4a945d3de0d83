"""Agree over the ranks, once, on what they measure and by which options they reduce it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otel_train.exceptions import ConfigurationError, SchemaMismatchError
from otel_train.ring import Schema
from otel_train.step.rank_group import RankGroup

Row = Sequence[str]
"""A metric as the ranks compare it: name, unit, instrument, reduction."""


def agree_schema(
    schema: Schema | None,
    group: RankGroup,
    problem: str = "",
    options: Mapping[str, Any] | None = None,
    *,
    scalars: int = 0,
) -> list[Row]:
    """Check that all ranks measure the same things, in the same order, and reduce them in the same way.

    Args:
        schema: What this rank measures; None when it has a problem.
        group: The ranks.
        problem: What is wrong on this rank. It is raised on all of them: the others must not wait for this one.
        options: What must be the same on all ranks, by name.
        scalars: How many of its metrics, the last ones, are scalars that other ranks may lack.

    Returns:
        The scalars of all ranks, by name; each is the same on all ranks that have it.

    Raises:
        ConfigurationError: Some rank has a problem or another option; the message names it, the rank and both values.
        SchemaMismatchError: They measure different things; the message names the first key and a rank that differs
            from the group's first one, both by their rank in the job.
    """
    described = (schema.modalities, schema.describe(), scalars) if schema is not None else None
    gathered = group.gather((problem, dict(options or {}), described))
    group.raise_problem([text for text, _, _ in gathered])
    _compare_options([given for _, given, _ in gathered], group)
    schemas = [described for _, _, described in gathered]
    modalities, rows, count = schemas[0]
    first, common = group.job_ranks[0], rows[: len(rows) - count]
    union: dict[str, tuple[int, Row]] = {}
    for rank, (other_modalities, other_rows, other_count) in zip(group.job_ranks, schemas, strict=True):
        if other_modalities != modalities:
            raise SchemaMismatchError(
                f"rank {rank} has the modalities {list(other_modalities)}, rank {first} has {list(modalities)}; "
                "give all ranks the same, in the same order"
            )
        _compare_common(common, other_rows[: len(other_rows) - other_count], first, rank)
        for row in other_rows[len(other_rows) - other_count :]:
            _compare_row(*union.setdefault(row[0], (rank, row)), rank, row)
    return [union[name][1] for name in sorted(union)]


def _compare_common(rows: Sequence[Row], other_rows: Sequence[Row], first: int, rank: int) -> None:
    if other_rows == rows:
        return
    here, there = {row[0]: row for row in rows}, {row[0]: row for row in other_rows}
    for key in [*here, *there]:
        if key not in there or key not in here:
            lacking, having = (rank, first) if key in here else (first, rank)
            raise SchemaMismatchError(
                f"metric {key!r} is given by rank {having} and not by rank {lacking}; give the same on all ranks"
            )
        _compare_row(first, here[key], rank, there[key])
    raise SchemaMismatchError(f"rank {rank} gives its sources in another order than rank {first}; use the same order")


def _compare_row(first: int, row: Row, rank: int, other: Row) -> None:
    if row != other:
        raise SchemaMismatchError(
            f"metric {row[0]!r} is {row[1:]} on rank {first} and {other[1:]} on rank {rank}; "
            "declare it the same way on all ranks"
        )


def _compare_options(options: Sequence[Mapping[str, Any]], group: RankGroup) -> None:
    """Raise on all ranks when one has another option: they would not reduce the same steps, and wait for each other."""
    for name, expected in options[0].items():
        for rank, given in zip(group.job_ranks, options, strict=True):
            if given.get(name) != expected:
                raise ConfigurationError(
                    f"{name} is {given.get(name)!r} on rank {rank} and {expected!r} on rank {group.job_ranks[0]}; "
                    "give all ranks the same"
                )
