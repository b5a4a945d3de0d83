"""Show a run while it goes on, and its verdict, on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from otel_train.output import fitting_table, make_console
from otel_train.smoke.job import SmokeResult, log_steps

_COLUMNS = ("metric", "last", "mean", "max", "healthy", "verdict")


@contextlib.contextmanager
def progress_bar(title: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of the steps that have arrived; yields the function that moves it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps have arrived"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(escape(title), total=None)
        yield lambda arrived, wanted: progress.update(task, completed=arrived, total=wanted)


def print_result(result: SmokeResult) -> None:
    """Print one line for each metric, what to do about those out of range, and the verdict.

    It fits 80 columns; a narrower terminal has fewer of the figures.
    """
    console = make_console()
    name = escape(result.name)  # a file's
    console.print(fitting_table(console, _COLUMNS, ("mean", "max", "healthy", "last"), partial(_table, result)))
    for each in result.judgements:
        expected = each.key in result.expected_unhealthy
        if not each.healthy:
            note = " (as this configuration means to show)" if expected else ""
            where = "" if each.worst_rank is None else f", worst on rank {each.worst_rank}"
            console.print(f"[red]OUT[/red] {each.key} is {_figure(each.judged)}{where}{note}. {each.remedy}")
        elif expected:
            console.print(f"[red]NOT OUT[/red] {each.key} is {_figure(each.judged)}, and should be out of its range")
    wanted = log_steps(result.config)
    if result.rows != wanted:
        what = "rows are in the wandb file" if result.wandb_file else "steps were acknowledged"
        console.print(f"[red]{result.rows} {what}, {wanted} were expected[/red]")
    wish = "what it means to show" if result.expected_unhealthy else "everything in its range"
    if result.passed:
        console.print(f"[green]PASSED[/green]: {name} shows {wish}")
    else:
        console.print(f"[red]FAILED[/red]: {name} does not show {wish}")


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
            "last": _figure(judgement.last),
            "mean": _figure(judgement.mean),
            "max": _figure(judgement.max),
            "healthy": str(judgement.range),
            "verdict": "[green]ok[/green]" if judgement.healthy else "[red]OUT[/red]",
        }
        table.add_row(*(cells[heading] for heading in columns))
    return table


def _figure(value: float) -> str:
    """Return a number in at most six characters, where it has so few."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3f}"
