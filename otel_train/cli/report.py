"""The command `report`, which writes a page about a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otel_train.cli.checked_paths import OutputFile
from otel_train.cli.command_group import Command, near
from otel_train.cli.progress_line import progress
from otel_train.cli.top_doctor_dump import ranges_of
from otel_train.exceptions import ConfigurationError

if TYPE_CHECKING:
    from otel_train.report import ReportRun


@click.command(
    cls=Command,
    examples=(
        "otel-train report ./otel-train-out/healthy-20260101-120000",
        "otel-train report ./bridge --run my-run -o my-run.html",
        "otel-train report ./otel-train-out/healthy-1 --compare ./otel-train-out/healthy-2",
    ),
)
@click.argument("source", metavar="RUN")
@click.option(
    "-o",
    "--out",
    type=OutputFile(allow_dash=True),
    default="report.html",
    show_default=True,
    help="The page's file; - for standard output.",
)
@click.option("--run", default="", help="The run's id, where RUN holds several.")
@click.option("--compare", default="", metavar="RUN2", help="Lay another run over it.")
@click.option("--config", help="The job's TOML, or a shipped one, for its [health] ranges; RUN/job.toml unless given.")
def report(source: str, out: Path, run: str, compare: str, config: str | None) -> None:
    """Write a page about RUN: one file, which does not request anything from a server.

    RUN is a directory with rings, the output folder of smoke or demo, a bridge's --state directory, a .wandb file, or
    the http(s) address of a Prometheus.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from otel_train.report import render_report  # noqa: PLC0415

    with progress("making the page"):
        page = render_report(
            _examined(source, run, config), _examined(compare, "", config) if compare else None, now=datetime.now(UTC)
        )
    if str(out) == "-":
        sys.stdout.buffer.write(page.encode())
        return
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"-o {out} can't be written: {error.strerror}; name a file in a folder") from error
    click.echo(f"{near(out.resolve())} written; open it in a browser")


def _examined(source: str, run: str, config: str | None) -> ReportRun:
    from otel_train.diagnose.capacity import advise  # noqa: PLC0415
    from otel_train.diagnose.examine import examine  # noqa: PLC0415
    from otel_train.diagnose.fitted_ranges import fitted_ranges  # noqa: PLC0415
    from otel_train.read.load import load  # noqa: PLC0415
    from otel_train.report import ReportRun  # noqa: PLC0415

    loaded = load(source, run=run)
    ranges, path = ranges_of(source, config)
    return ReportRun(
        history=loaded.history,
        findings=examine(loaded.history, job=loaded.job, ranges=ranges),
        plan=advise(loaded.history),
        ranges=fitted_ranges(loaded.history, ranges),
        config=path.read_text() if path is not None else "",
    )
