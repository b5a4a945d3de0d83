"""Run the benchmarks, print each one's figures, and keep them in benchmarks/results.md.

    python -m benchmarks [--quick] [--baseline FOLDER] [hot_path ledger ...]

Without names all of them run. A single one replaces its own section of the results. `--quick` shows that they run: it
takes few rounds, and keeps nothing. Sections that compare with the build before the native core take it out of the
checkout's history, or have it in the folder that is given.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from benchmarks import builds, packages, report
from benchmarks.measure import Section
from otel_train.extras import is_installed

if TYPE_CHECKING:
    from rich.console import Console


def show(section: Section, console: Console) -> None:
    """Print one section."""
    from rich.table import Table  # noqa: PLC0415  # not before it is said that packages are missing

    console.print(f"\n[bold]{section.number}. {section.title}[/]\n{section.how}")
    for rows in [list(report.table(section)), *section.tables]:
        if rows:
            printed = Table(*rows[0])
            for row in rows[1:]:
                printed.add_row(*row)
            console.print(printed)
    for goal in section.goals:
        console.print(f"  {'met   ' if goal.met else 'MISSED'}  {goal.text}: {goal.measured}")
    for note in section.notes:
        console.print(f"  {note}")


def main() -> None:
    """Run what is asked for, or say what it needs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", choices=[*packages.NEEDED, []], metavar="name", help=", ".join(packages.NEEDED)
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--baseline", metavar="FOLDER", help=f"a checkout of {builds.BASELINE}")
    arguments = parser.parse_args()
    if arguments.baseline:
        os.environ[builds.GIVEN] = arguments.baseline
    names = arguments.names or list(packages.NEEDED)
    missing = packages.missing(names, kept=not arguments.quick)
    if missing:
        refuse(packages.refusal(missing))
    try:
        measure(names, quick=arguments.quick)
    except builds.BaselineMissingError as error:
        refuse(str(error))
    except ModuleNotFoundError as error:
        name = str(error.name).partition(".")[0]
        if is_installed(name):
            raise
        refuse(packages.refusal([name]))  # of one that a listed package should have brought


def refuse(line: str) -> NoReturn:
    """End with this line, and the status of a wrong use."""
    print(line, file=sys.stderr)
    sys.exit(2)


def measure(names: list[str], *, quick: bool) -> None:
    """Run these sections; print and, but for a quick run, keep what they give."""
    from rich.console import Console  # noqa: PLC0415  # as above

    console = Console(highlight=False)
    kept = report.HERE / "results.json"
    sections = report.load(kept)
    for name in names:
        section: Section = importlib.import_module(f"benchmarks.{name}").run(quick=quick)
        show(section, console)
        sections[section.number] = section, report.machine()
        if not quick:
            report.keep(sections, kept)
            (report.HERE / "results.md").write_text(report.render(sections))
            report.draw(sections, report.HERE)


if __name__ == "__main__":
    main()
