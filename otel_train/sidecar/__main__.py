"""`python -m otel_train.sidecar DIRECTORY`: what a rank starts; `otel-train sidecar` is the same for people."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from otel_train.sidecar.service import GRACE, run_sidecar


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m otel_train.sidecar")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--parent", type=int, default=None, help="stay as long as this process lives")
    parser.add_argument("--rank-interval", type=float, default=10.0)
    parser.add_argument("--linger", type=float, default=3600.0)
    parser.add_argument("--grace", type=float, default=GRACE, help="seconds after SIGTERM")
    parser.add_argument("--restarts", type=int, default=0, help="how often it was started again, for the record")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    run_sidecar(
        arguments.directory,
        parent=arguments.parent,
        rank_interval=arguments.rank_interval,
        linger=arguments.linger,
        grace=arguments.grace,
        restarts=arguments.restarts,
    )


if __name__ == "__main__":
    main()
