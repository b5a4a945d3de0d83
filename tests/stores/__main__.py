"""Build the stores that the tests run, before their time is bounded."""

from __future__ import annotations

import os

from tests.support import stack_programs as programs

if __name__ == "__main__":
    programs.prometheus()
    programs.victoria_metrics()
    if os.environ.get("THANOS"):
        programs.thanos()
