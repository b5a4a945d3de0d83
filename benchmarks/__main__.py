"""Run the benchmarks, print each one's figures, and keep them in benchmarks/results.md.

    python -m benchmarks [--quick] [hot_path ledger ...]

Without names all of them run. A single one replaces its own section of the results. `--quick` shows that they run: it
takes few rounds, and keeps nothing.
"""

from __future__ import annotations

import argparse
import importlib

from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.measure import Section

NAMES = (
    "hot_path",
    "disabled",
    "interference",
    "reduction",
    "ledger",
    "sidecar",
    "bridge",
    "end_to_end",
    "scale",
    "memory",
    "start",
    "gpu",
    "batch_count",
    "by_source",
)


def show(section: Section, console: Console) -> None:
    """Print one section."""
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
    """Run, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="name", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    kept = report.HERE / "results.json"
    sections = report.load(kept)
    for name in arguments.names or NAMES:
        section: Section = importlib.import_module(f"benchmarks.{name}").run(quick=arguments.quick)
        show(section, console)
        sections[section.number] = section, report.machine()
        if not arguments.quick:
            report.keep(sections, kept)
            (report.HERE / "results.md").write_text(report.render(sections))
            report.draw(sections, report.HERE)


if __name__ == "__main__":
    main()
