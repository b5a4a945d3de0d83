"""Ask for the rights that mounts and network namespaces need."""

from __future__ import annotations

import os


def require_root(what: str) -> None:
    """See that this process may do what a test does to the machine.

    Raises:
        PermissionError: It may not; the message says what to do.
    """
    if os.geteuid() != 0:
        raise PermissionError(f"the fault tests {what}, which needs root: run `make test-faults` as root")
