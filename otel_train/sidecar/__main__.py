"""`python -m otel_train.sidecar DIRECTORY`, which a rank starts; `otel-train sidecar` is the same for people."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import util
from pathlib import Path

from otel_train.ring import SidecarEnd, is_alive, start_time

logger = logging.getLogger(__name__)

_LIBRARIES = (
    "google.protobuf",
    "grpc",
    "opentelemetry.exporter.otlp.proto.grpc",
    "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry.sdk",
    "requests",
)
LINGER = 3600.0
"""Seconds that a sidecar goes on trying to send after the last rank has ended."""


def main(installed: Sequence[str] = ()) -> None:
    """Read the arguments and serve.

    Args:
        installed: Directories of installed packages, searched where the sidecar's own lack the libraries that it needs.
    """
    parser = argparse.ArgumentParser(prog="python -m otel_train.sidecar")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--parent", type=int, default=None, help="stay as long as this process lives")
    parser.add_argument("--owner", action="store_true", help="the standard input is a rank's session")
    parser.add_argument("--rank-interval", type=float, default=10.0)
    parser.add_argument("--linger", type=float, default=LINGER)
    parser.add_argument("--grace", type=float, default=20.0, help="seconds after SIGTERM")
    parser.add_argument("--restarts", type=int, default=0, help="how often it was started again, for the record")
    arguments = parser.parse_args()
    refused: list[str] = []
    session: Callable[[], bool] | None = None
    tell: Callable[[str], None] = print
    if arguments.owner:
        from otel_train.sidecar.machine_share import leave_ranks_share  # noqa: PLC0415
        from otel_train.sidecar.rank_session import RankSession, drop_inherited_settings  # noqa: PLC0415

        refused = leave_ranks_share()
        drop_inherited_settings()
        rank_session = RankSession(arguments.parent)
        session, tell = rank_session.is_open, rank_session.tell
        signal.signal(signal.SIGTERM, partial(_leave_early, rank_session.tell))
    elif arguments.parent is not None:
        session = partial(is_alive, arguments.parent, start_time(arguments.parent))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if refused:
        logger.info("what the rank was given holds here too, for the kernel refuses a change: %s", ", ".join(refused))
    try:
        _find_libraries(installed)
        from otel_train.sidecar.service import run_sidecar  # noqa: PLC0415

        end = run_sidecar(
            arguments.directory,
            session=session,
            rank_interval=arguments.rank_interval,
            linger=arguments.linger,
            grace=arguments.grace,
            restarts=arguments.restarts,
        )
    except Exception as error:
        tell(f"failed {error!r:.300}".replace("\n", " "))
        raise
    if arguments.owner:
        tell(f"end {end}")


def _leave_early(tell: Callable[[str], None], *_: object) -> None:
    """End on a signal before anything was begun."""
    tell(f"end {SidecarEnd.TOLD}")
    os._exit(0)


def _find_libraries(installed: Sequence[str]) -> None:
    if any(map(_is_missing, _LIBRARIES)):
        sys.path += [path for path in installed if path not in sys.path]


def _is_missing(module: str) -> bool:
    try:
        return util.find_spec(module) is None
    except ImportError:
        return True


if __name__ == "__main__":
    main()
