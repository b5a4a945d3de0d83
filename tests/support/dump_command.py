"""The command `otel-train dump`, and the rows that it writes."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from otel_train.cli import main


def dump(*arguments: object) -> Result:
    """Run `otel-train dump`."""
    return CliRunner().invoke(main, ["dump", *map(str, arguments)])


def dumped(*arguments: object) -> list[dict[str, Any]]:
    """Return a dump's rows."""
    result = dump(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]
