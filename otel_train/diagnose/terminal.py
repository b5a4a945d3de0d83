"""Print an examination: for a terminal of 80 columns, as clear without colour; whole lines for a pipe; or JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from otel_train.diagnose.capacity import advise
from otel_train.diagnose.examine import exit_code
from otel_train.diagnose.finding import WRONG, Finding, Severity
from otel_train.number_text import counted
from otel_train.output import make_console
from otel_train.printable import printable
from otel_train.read.history import History

_STYLES = {Severity.CRITICAL: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_INDENT = 4
_CORES = {"native": "the native core in C", "python": "its twin in Python"}


def print_findings(history: History, findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print the findings that are wrong, worst first, then the notes, a line of unknown checks and one of those well.

    Args:
        history: The run.
        findings: As `examine` returns them.
        console: The terminal.
    """
    console = console or make_console()
    steps = history.cluster.steps
    console.print(Text(printable(f"run {history.run_id or '?'}: {_ranks(history)}, {_steps(steps)}")))
    console.print(Text(printable(f"read from {history.source}"), style="dim"))
    core = _CORES.get(str(history.facts.get("telemetry.core")))
    if core is not None:
        console.print(Text(f"at each step {core} ran", style="dim"))
    print_list(findings, console)


def print_list(findings: Sequence[Finding], console: Console) -> None:
    """Print findings, which are in their order, and the verdict."""
    explained: set[tuple[str, ...]] = set()
    wrong = [finding for finding in findings if finding.severity in WRONG]
    for finding in [*wrong, *(finding for finding in findings if finding.severity is Severity.NOTE)]:
        console.print()
        head = Text(finding.severity.upper(), style=_STYLES[finding.severity])
        head.append(printable(f" {finding.check}"), style="bold")
        head.append(printable(f": {finding.summary}"))
        console.print(head)
        _indented(console, _when(finding))
        why = finding.cause, finding.remedy
        if why in explained:
            _indented(console, "cause and remedy as above")
            continue
        explained.add(why)
        for line in finding.evidence:
            _indented(console, line, lead="- ")
        _indented(console, finding.cause, lead="cause:  ")
        _indented(console, finding.remedy, lead="remedy: ", style="bold")
    console.print()
    for severity, word in ((Severity.UNKNOWN, "not known"), (Severity.OK, "ok")):
        names = [finding.check for finding in findings if finding.severity is severity]
        if names:
            console.print(Text(printable(f"{word}: {', '.join(names)}")))
    verdict = "nothing is wrong" if not wrong else f"{counted(len(wrong), 'finding')}, the worst first"
    console.print(Text(verdict, style="green" if not wrong else "red"))


def findings_json(history: History, findings: Sequence[Finding]) -> str:
    """Return the examination as JSON: the run, the findings, the capacities."""
    steps, plan = history.cluster.steps, advise(history)
    content = {
        "source": history.source,
        "run_id": history.run_id,
        "world_size": history.world_size,
        "first_step": steps[0] if steps else None,
        "last_step": steps[-1] if steps else None,
        "core": history.facts.get("telemetry.core"),
        "healthy": not exit_code(findings),
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "capacity": None if plan is None else dataclasses.asdict(plan),
    }
    return json_text(content)


def json_text(content: Any) -> str:
    """Return JSON for people and programs, null for a number that is not finite."""
    return json.dumps(_finite(content), indent=2)


def _finite(value: Any) -> Any:
    """Return a value for JSON: null instead of a number that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _indented(console: Console, line: str, *, lead: str = "", style: str = "") -> None:
    """Print a line of a finding; wrapped text stands under its first word."""
    if line:
        width = max(20, console.width - _INDENT - len(lead))
        for number, part in enumerate(Text(printable(line), style=style).wrap(console, width)):
            part.rstrip()
            console.print(Text(" " * _INDENT + (lead if number == 0 else " " * len(lead))) + part)


def _when(finding: Finding) -> str:
    parts = [] if finding.since_step is None else [f"since step {finding.since_step}"]
    if finding.rank is not None:
        parts.append(f"worst on rank {finding.rank}")
    if finding.chance is not None:
        parts.append(f"by chance: {finding.chance:.2g}" if finding.chance else "by chance: never")
    return ", ".join(parts)


def _ranks(history: History) -> str:
    count = history.world_size
    return counted(count, "rank") if count else "an unknown number of ranks"


def _steps(steps: Sequence[int]) -> str:
    return f"log steps {steps[0]} to {steps[-1]}" if steps else "no log step with cluster-wide values"
