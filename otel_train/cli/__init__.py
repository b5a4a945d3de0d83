"""The command `otel-train`. Each command imports what it needs when it runs."""

from __future__ import annotations

import click

from otel_train import __version__
from otel_train.cli.catalogue_render import catalogue, render
from otel_train.cli.clean import clean
from otel_train.cli.command_group import NAME, Commands
from otel_train.cli.complete import completion
from otel_train.cli.report import report
from otel_train.cli.send import send
from otel_train.cli.sidecar_bridge import bridge, sidecar, sync
from otel_train.cli.smoke_demo import demo, smoke
from otel_train.cli.top_doctor_dump import doctor, dump, top
from otel_train.cli.workspace import wandb_workspace

__all__ = ["main"]


@click.group(
    NAME,
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=(
        "otel-train demo",
        "otel-train smoke starved_reader --nproc 4",
        "otel-train top",
        "otel-train doctor",
        "otel-train report ./otel-train-out/healthy-20260101-120000",
        "otel-train dump --help",
    ),
)
@click.version_option(__version__)
def main() -> None:
    """Telemetry for distributed PyTorch jobs that mix data streams and keep state in a sharded ledger."""


for command in (
    bridge,
    catalogue,
    clean,
    completion,
    demo,
    doctor,
    dump,
    render,
    report,
    send,
    sidecar,
    smoke,
    sync,
    top,
    wandb_workspace,
):
    main.add_command(command)
