"""Keep the results: results.json holds all sections, results.md and the pictures are made from it."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import Figures, Goal, Section

HERE = Path(__file__).parent
PACKAGES = (
    "torch",
    "opentelemetry-sdk",
    "prometheus-client",
    "torchmetrics",
    "wandb",
    "nv-one-logger-core",
    "traceml-ai",
)


def load(path: Path) -> dict[int, tuple[Section, str]]:
    """Return the sections that were kept, with the machine of each, by number."""
    if not path.exists():
        return {}
    kept: dict[int, tuple[Section, str]] = {}
    for entry in json.loads(path.read_text()):
        machine = entry.pop("machine")
        entry["figures"] = {name: Figures(**figures) for name, figures in entry["figures"].items()}
        entry["goals"] = [Goal(**goal) for goal in entry["goals"]]
        kept[entry["number"]] = Section(**entry), machine
    return kept


def keep(sections: Mapping[int, tuple[Section, str]], path: Path) -> None:
    """Write the sections."""
    entries = [asdict(section) | {"machine": machine} for _, (section, machine) in sorted(sections.items())]
    path.write_text(json.dumps(entries, indent=1) + "\n")


def machine() -> str:
    """Return what the figures were measured on, in words."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.machine(),
    )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if _installed(name))
    today = dt.datetime.now(tz=dt.UTC).date()
    busy = f"load average {os.getloadavg()[2]:.1f} over 15 minutes"  # the benchmark's own processes are in it
    return f"{today}: {os.cpu_count()} x {model}, {busy}; Python {platform.python_version()}, {versions}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def table(section: Section) -> Iterator[list[str]]:
    """Yield the rows of a section's figures, the first one the header."""
    if not section.figures:
        return
    ours = section.figures.get(section.ours)
    yield ["", f"median ({section.unit})", "5 % to 95 %", f"p99 ({section.unit})", "x ours (5 % to 95 %)"]
    for name, figures in section.figures.items():
        low, high = figures.spread
        ratio = ""
        if ours is not None and figures is not ours:
            middle, least, most = figures.ratio(ours)
            ratio = f"{_short(middle)} ({_short(least)} to {_short(most)})"
        p99 = "" if figures.p99 is None else _short(figures.p99)
        yield [name, _short(figures.median), f"{_short(low)} to {_short(high)}", p99, ratio]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _markdown(rows: list[list[str]]) -> Iterator[str]:
    header, *body = rows
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in body:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def render(sections: Mapping[int, tuple[Section, str]]) -> str:
    """Return results.md."""
    lines = [
        "# What it costs",
        "",
        "<!-- Made by `make bench`; edit nothing here. -->",
        "",
        "Contenders take turns in one run; a figure is the median over the rounds, the spread their 5th to 95th",
        "percentile, a ratio is formed round by round. Peers are set up as their documentation advises.",
        "",
        "| # | what | goal | measured | met |",
        "|---|---|---|---|---|",
    ]
    for number, (section, _) in sorted(sections.items()):
        lines += [
            f"| {number} | {section.title} | {goal.text} | {goal.measured} | {'yes' if goal.met else '**no**'} |"
            for goal in section.goals
        ]
    lines += ["", "![The cost of a step on the training thread](results.svg)", ""]
    for number, (section, where) in sorted(sections.items()):
        lines += [f"## {number}. {section.title}", "", section.how, ""]
        for rows in [list(table(section)), *section.tables]:
            if rows:
                lines += [*_markdown(rows), ""]
        if section.curves:
            lines += [f"![{section.title}](growth.svg)", ""]
        lines += [f"- {note}" for note in section.notes] + ([""] if section.notes else [])
        lines += [f"Measured {where}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def draw(sections: Mapping[int, tuple[Section, str]], folder: Path) -> None:
    """Draw the cost of a step beside the peers' (results.svg), and the growth over world sizes (growth.svg)."""
    import matplotlib as mpl  # noqa: PLC0415  # heavy, and only the report wants it

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "otel_train", "font.size": 9})
    import matplotlib.pyplot as plt  # noqa: PLC0415

    for section, _ in sections.values():
        if section.number == 1 and section.figures:
            entries = sorted(section.figures.items(), key=lambda entry: entry[1].median)
            figure, axes = plt.subplots(figsize=(8, 0.34 * len(entries) + 1), layout="constrained")
            values = [figures.median for _, figures in entries]
            colours = ["tab:blue" if name.startswith("otel_train") else "tab:gray" for name, _ in entries]
            bars = axes.barh([name for name, _ in entries], values, color=colours)
            axes.bar_label(bars, [f"{_short(value)} µs" for value in values], padding=3)
            axes.set(xscale="log", xlabel="µs a step on the training thread (median)", xlim=(None, max(values) * 4))
            axes.spines[["top", "right"]].set_visible(False)
            figure.savefig(folder / "results.svg", metadata={"Date": None})
            plt.close(figure)
        if section.curves:
            figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
            for name, points in section.curves.items():
                axes.plot(*zip(*points, strict=True), marker="o", label=name)
            axes.set(xscale="log", yscale="log", xlabel="ranks")
            axes.legend()
            axes.grid(alpha=0.3)
            figure.savefig(folder / "growth.svg", metadata={"Date": None})
            plt.close(figure)
