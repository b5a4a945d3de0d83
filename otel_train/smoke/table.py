"""Show a smoke run's progress and its verdict on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from otel_train.number_text import short_number
from otel_train.output import fitting_table, make_console
from otel_train.smoke.job import SmokeResult, log_steps

_COLUMNS = ("metric", "last", "mean", "max", "healthy", "verdict")


@contextlib.contextmanager
def progress_bar(title: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of the steps that have arrived; yield the function that moves it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps have arrived"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(escape(title), total=None)
        yield lambda arrived, expected: progress.update(task, completed=arrived, total=expected)


def print_result(result: SmokeResult) -> None:
    """Print one line for each metric, the remedies of those out of range, and the verdict.

    It fits 80 columns; a narrower terminal has fewer of the figures.
    """
    console = make_console()
    name = escape(result.name)  # a file's
    console.print(fitting_table(console, _COLUMNS, ("mean", "max", "healthy", "last"), partial(_table, result)))
    for judgement in result.judgements:
        key, value = judgement.key, short_number(judgement.judged)
        intended = key in result.expected_unhealthy
        if not judgement.healthy:
            note = " (as this configuration means to show)" if intended else ""
            where = "" if judgement.worst_rank is None else f", worst on rank {judgement.worst_rank}"
            console.print(f"[red]OUT[/red] {key} is {value}{where}{note}. {judgement.remedy}")
        elif intended:
            console.print(f"[red]NOT OUT[/red] {key} is {value}, and should be out of its range")
    expected = log_steps(result.config)
    if result.rows != expected:
        unit = "rows are in the wandb file" if result.wandb_file else "steps were acknowledged"
        console.print(f"[red]{result.rows} {unit}, {expected} were expected[/red]")
    goal = "what it means to show" if result.expected_unhealthy else "everything in its range"
    if result.passed:
        console.print(f"[green]PASSED[/green]: {name} shows {goal}")
    else:
        console.print(f"[red]FAILED[/red]: {name} does not show {goal}")


def _table(result: SmokeResult, columns: Sequence[str]) -> Table:
    title = f"{escape(result.name)}: {result.world_size} ranks, {result.rows} steps"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in columns:
        table.add_column(
            "" if heading == "verdict" else heading,
            justify="right" if heading in ("last", "mean", "max") else "left",
            no_wrap=True,
        )
    for judgement in result.judgements:
        cells = {
            "metric": judgement.key,
            "last": short_number(judgement.last),
            "mean": short_number(judgement.mean),
            "max": short_number(judgement.max),
            "healthy": str(judgement.range),
            "verdict": "[green]ok[/green]" if judgement.healthy else "[red]OUT[/red]",
        }
        table.add_row(*(cells[heading] for heading in columns))
    return table
