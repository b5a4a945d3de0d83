"""Print a receiver's check, for a terminal or as JSON."""

from __future__ import annotations

import dataclasses

from rich.console import Console
from rich.text import Text

from otel_train.diagnose.examine import exit_code
from otel_train.diagnose.finding import WORST_FIRST
from otel_train.diagnose.terminal import json_text, print_list
from otel_train.output import make_console
from otel_train.printable import printable
from otel_train.probe.check_receiver import ReceiverCheck


def print_check(check: ReceiverCheck, console: Console | None = None) -> None:
    """Print the findings, the worst first."""
    console = console or make_console()
    console.print(Text(printable(f"receiver {check.endpoint}")))
    asked = f"; asked what has arrived: {check.query}" if check.query else ""
    console.print(Text(printable(f"sent as run {check.run.run_id}{asked}"), style="dim"))
    print_list(sorted(check.findings, key=lambda finding: WORST_FIRST.index(finding.severity)), console)


def check_json(check: ReceiverCheck) -> str:
    """Return the check as JSON: the receiver, the run, and the findings as `doctor --json` has them."""
    return json_text(
        {
            "receiver": check.endpoint.target,
            "protocol": str(check.endpoint.protocol),
            "query": check.query or None,
            "run_id": check.run.run_id,
            "healthy": not exit_code(check.findings),
            "findings": [dataclasses.asdict(finding) for finding in check.findings],
        }
    )
