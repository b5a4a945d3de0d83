"""`torchrun -m otel_train.trainer --config X.toml`: the reference job, on this rank."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from otel_train.exceptions import ConfigurationError
from otel_train.paths import absolute
from otel_train.trainer.config import find_config, load_config


def main() -> int:
    """Read the arguments and train; a bad configuration is one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="otel_train.trainer", description=__doc__)
    parser.add_argument("--config", required=True, help="a TOML file, or the name of a shipped configuration")
    parser.add_argument("--steps", type=int, help="stop after that many steps instead of the file's")
    parser.add_argument("--checkpoints", help="save the job into this folder, and begin from the newest one there")
    parser.add_argument("--events", type=Path, help="write each rank's events into this directory")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        path = find_config(arguments.config)
        overrides: dict[str, dict[str, object]] = {}
        if arguments.steps is not None:
            overrides["job"] = {"steps": arguments.steps}
        if arguments.checkpoints is not None:
            overrides["checkpoint"] = {"folder": arguments.checkpoints}
        config = load_config(path, overrides)
        from otel_train.trainer.loop import train  # noqa: PLC0415  # a wrong configuration should not wait for torch

        train(config, path.parent, arguments.events and absolute(arguments.events))
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201  # the command's own output
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
