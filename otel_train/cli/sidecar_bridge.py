"""The commands `sidecar` and `bridge`, which run until they are stopped, and `sync`."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from otel_train.cli.checked_paths import UserPath
from otel_train.cli.command_group import Command
from otel_train.exceptions import ConfigurationError
from otel_train.printable import printable


@click.command(
    cls=Command,
    examples=("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 otel-train sidecar /dev/shm/otel_train-$UID/my-run",),
)
@click.argument("directory", type=UserPath(file_okay=False))
@click.option("--rank-interval", default=10.0, show_default=True, help="Seconds between exports of a rank's values.")
@click.option("--grace", default=20.0, show_default=True, help="Seconds that it goes on at most after SIGTERM.")
def sidecar(directory: Path, rank_interval: float, grace: float) -> None:
    """Send what the rings in DIRECTORY hold over OTLP, until told to stop.

    DIRECTORY may be empty, or yet to be made where no other job's rings are: then the first ring is waited for.

    After SIGTERM it goes on until all ranks have ended and their records are sent; SIGINT, or a second SIGTERM, ends it
    after one more try to send.

    The standard OTEL_EXPORTER_OTLP_* variables say where to. A job that is to use it runs with
    OTEL_TRAIN_SIDECAR=external and OTEL_TRAIN_RING_DIR=DIRECTORY.
    """
    from otel_train.sidecar import run_sidecar  # noqa: PLC0415

    _check_directory(directory)
    _log_to_stderr()
    run_sidecar(directory, rank_interval=rank_interval, grace=grace)


def _check_directory(directory: Path) -> None:
    """Refuse a directory whose name is probably mistyped: nothing would ever come there.

    Raises:
        ConfigurationError: It does not exist, and other jobs' are beside it, or there is nothing that it could be in.
    """
    from otel_train.ring import ring_files  # noqa: PLC0415

    if directory.is_dir():
        return
    if not directory.parent.is_dir():
        raise ConfigurationError(f"sidecar: neither {directory} nor the directory that it is in exists")
    names = sorted(path.name for path in directory.parent.iterdir() if path.is_dir() and ring_files(path))
    if names:
        nearest = difflib.get_close_matches(directory.name, names, 1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"rings are in {', '.join(names[:8])} there;"
        raise ConfigurationError(f"sidecar: {directory} does not exist; {hint} for a job that is to come make it first")


@click.command(
    cls=Command,
    examples=(
        "otel-train bridge --state ./bridge --wandb-mode online",
        "otel-train bridge --check --listen 127.0.0.1:4317",
    ),
)
@click.option("--listen", default="127.0.0.1:4317", show_default=True, help="HOST:PORT for gRPC; port 0: a free one.")
@click.option(
    "--http-listen", default="", help="For HTTP, or off.  [default: port 4318 where --listen has 4317, else off]"
)
@click.option("--state", type=UserPath(file_okay=False), help="Inbox and wandb files.")
@click.option("--wandb-mode", type=click.Choice(["offline", "online"]), default="offline", show_default=True)
@click.option("--project", envvar="WANDB_PROJECT", default="otel-train", show_default=True, help="The wandb project.")
@click.option(
    "--settle",
    default=30.0,
    show_default=True,
    help="Seconds that missing points of a step, and missing steps before it, are waited for.",
)
@click.option("--max-bytes", default=4 * 2**30, show_default=True, help="Of the inbox, where rows wait for wandb.")
@click.option("--max-series", default=10_000, show_default=True, help="Of one run; points of further ones are refused.")
@click.option("--token", envvar="OTEL_TRAIN_BRIDGE_TOKEN", default="", help="What senders must give as bearer token.")
@click.option("--tls-certificate", type=UserPath(), help="PEM file of the server's certificate chain.")
@click.option("--tls-key", type=UserPath(), help="PEM file of its private key.")
@click.option("--check", is_flag=True, help="Say what is wrong with the bridge there, or of --state; see below.")
def bridge(state: Path | None, *, check: bool, **settings: Any) -> int:
    """Receive OTLP metrics over gRPC and HTTP, and log one wandb row a step.

    With OTEL_EXPORTER_OTLP_ENDPOINT set the bridge's own metrics go there.

    --check asks a running bridge at --listen and --http-listen, or where the one of --state is, which it then looks at
    too: disk, inbox, what wandb lacks. A line for each finding says what to do. The exit code is 0 where all is well, 1
    where the bridge does not serve, 3 where it serves and something else is wrong.
    """
    if check:
        return _check_bridge(state, settings)
    if state is None:
        raise ConfigurationError("bridge --state is missing; give the directory for the inbox and the wandb files")
    from otel_train.bridge import BridgeConfig, run_bridge  # noqa: PLC0415

    _log_to_stderr()
    code = run_bridge(BridgeConfig(state=state, **settings))
    # All runs are finished, or the time for it is over. wandb's own exit hook waits for its service without a bound.
    logging.shutdown()
    os._exit(code)


def _check_bridge(state: Path | None, settings: dict[str, Any]) -> int:
    """Print what is wrong with a bridge, and return the exit code."""
    from otel_train.bridge.bridge_check import check_bridge  # noqa: PLC0415

    is_default = click.get_current_context().get_parameter_source("listen") is ParameterSource.DEFAULT
    report = check_bridge(
        "" if is_default and state is not None else settings["listen"],
        settings["http_listen"],
        state=state,
        tls=settings["tls_certificate"] is not None,
        token=settings["token"],
        max_bytes=settings["max_bytes"],
    )
    for line in (*report.broken, *report.troubled):
        click.echo(printable(line), err=True)
    for line in (*report.notes, *(f"the bridge at {address} serves" for address in report.serves)):
        click.echo(printable(line))
    return report.exit_code


@click.command(
    cls=Command,
    examples=("otel-train sync ./bridge", "WANDB_API_KEY=… otel-train sync ./bridge --project my-project"),
)
@click.argument("state", required=False, metavar="[STATE]", type=UserPath(file_okay=False), default="bridge")
@click.option("--project", default="", help="The wandb project; the bridge's --project unless given.")
@click.option("--dry-run", is_flag=True, help="Say what would be uploaded, without asking a server.")
def sync(state: Path, project: str, *, dry_run: bool) -> None:
    """Upload a bridge's offline runs to wandb, each row once, also while the bridge runs.

    STATE is the bridge's --state directory, ./bridge by default. What runs still write is left for a later call; one
    that was interrupted goes on where it was. WANDB_BASE_URL, WANDB_API_KEY and WANDB_ENTITY say where to.

    Before a bridge goes on online (--wandb-mode online), upload what it wrote offline: the server takes rows in order.
    """
    from otel_train.bridge.upload import upload  # noqa: PLC0415

    upload(state, project, click.echo, dry_run=dry_run)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
