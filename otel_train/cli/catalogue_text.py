"""The catalogue as text: for a terminal of any width, and for a pipe, with each metric on a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_train.catalogue import CATALOGUE, MAX_SUFFIX, Metric
from otel_train.output import make_console

if TYPE_CHECKING:
    from rich.console import Console

TABLE_WIDTH = 110
"""Cells below which a table's last column is too narrow for sentences."""


def print_catalogue(console: Console | None = None) -> None:
    """Print every metric: a table on a terminal, paragraphs on a narrow one, a line for each metric elsewhere."""
    console = console or make_console()
    if not console.is_terminal:
        _print_lines(console)
    elif console.width >= TABLE_WIDTH:
        _print_table(console)
    else:
        _print_paragraphs(console)


def _keys(metric: Metric) -> str:
    return f"{metric.wandb_key}[{MAX_SUFFIX}]" if metric.with_max else metric.wandb_key


def _print_table(console: Console) -> None:
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(title="otel_train's metrics", show_lines=True)
    table.add_column("name, wandb key", overflow="fold")
    table.add_column("unit, reduction", no_wrap=True)
    table.add_column("healthy", no_wrap=True)
    table.add_column("meaning, remedy", ratio=1)
    for metric in CATALOGUE:
        table.add_row(
            f"[bold]{metric.name}[/bold]\n{escape(_keys(metric))}",
            f"{metric.unit}\n{metric.reduction}",
            str(metric.healthy or ""),
            f"{metric.description}\n[italic]{metric.remedy}[/italic]" if metric.remedy else metric.description,
        )
    console.print(table)


def _print_paragraphs(console: Console) -> None:
    from rich.text import Text  # noqa: PLC0415

    for metric in CATALOGUE:
        console.print(Text(metric.name, style="bold", overflow="fold"))
        healthy = f"healthy: {metric.healthy}" if metric.healthy else ""
        for line in (_keys(metric), f"{metric.unit}  {metric.reduction}", healthy, metric.description, metric.remedy):
            if line:
                console.print(Text(line, overflow="fold"))
        console.print()


def _print_lines(console: Console) -> None:
    from rich.text import Text  # noqa: PLC0415

    rows = [("name", "wandb key", "unit", "reduction", "healthy", "meaning", "remedy")]
    for metric in CATALOGUE:
        healthy = str(metric.healthy or "")
        rows.append(
            (metric.name, _keys(metric), metric.unit, metric.reduction, healthy, metric.description, metric.remedy)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        console.print(Text(line), soft_wrap=True)
