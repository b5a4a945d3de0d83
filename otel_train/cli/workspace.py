"""The command `wandb-workspace`."""

from __future__ import annotations

from pathlib import Path

import click

from otel_train.cli.checked_paths import UserPath
from otel_train.cli.command_group import Command
from otel_train.extras import require_extras


@click.command(
    "wandb-workspace",
    cls=Command,
    examples=(
        "WANDB_API_KEY=… otel-train wandb-workspace --project my-project",
        "otel-train wandb-workspace --out workspace.json",
    ),
)
@click.option("--project", envvar="WANDB_PROJECT", default="otel-train", show_default=True, help="The wandb project.")
@click.option("--entity", envvar="WANDB_ENTITY", default="", help="The user or team; the key's own unless given.")
@click.option("--name", default="otel_train", show_default=True, help="The workspace's name.")
@click.option("--out", type=UserPath(dir_okay=False), help="Write what would be sent to a file, and ask no server.")
def wandb_workspace(project: str, entity: str, name: str, out: Path | None) -> None:
    """Make a workspace in wandb with the panels of the Grafana dashboards, over train/step.

    It has those whose values a run's rows hold: the cluster's. Each call makes a new workspace; others stay as they
    are. WANDB_BASE_URL and WANDB_API_KEY say where to.
    """
    require_extras("wandb-workspace", "bridge", "render", "workspace")
    from otel_train.render.wandb_workspace import save_workspace, workspace_json  # noqa: PLC0415

    if out is not None:
        out.write_text(workspace_json(project, entity=entity, name=name), encoding="utf-8")
        click.echo(f"wrote {out}")
        return
    click.echo(save_workspace(project, entity=entity, name=name))
