"""The commands `catalogue`, and `render`, which writes the files that are generated from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from otel_train.cli.checked_paths import OutputFolder, UserPath
from otel_train.cli.command_group import Command, near
from otel_train.exceptions import ConfigurationError
from otel_train.extras import require_extras


@click.command(cls=Command, examples=("otel-train catalogue", "otel-train catalogue --json | jq -r '.[].name'"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def catalogue(*, as_json: bool) -> None:
    """Print every metric: name, unit, reduction, wandb key, healthy range, remedy."""
    if as_json:
        from otel_train.catalogue.as_json import catalogue_json  # noqa: PLC0415

        click.echo(json.dumps(catalogue_json(), indent=2))
    else:
        from otel_train.cli.catalogue_text import print_catalogue  # noqa: PLC0415

        print_catalogue()


@click.command(
    cls=Command,
    examples=(
        "otel-train render",
        "otel-train render --check",
        "otel-train render --out ./monitoring --health job.toml --runbooks https://wiki.example/runbooks",
    ),
)
@click.option("--check", is_flag=True, help="Change nothing; fail when a file differs from what would be written.")
@click.option("--root", type=UserPath(file_okay=False), default=Path(), help="The checkout.")
@click.option(
    "--out",
    type=OutputFolder(),
    help="Write alert rules, dashboards, configurations of collector and Prometheus, and manifests for Kubernetes "
    "there, for an installation of your own, and leave the checkout alone.",
)
@click.option("--runbooks", help="With --out: the address that the alerts' links begin with.")
@click.option(
    "--health",
    type=UserPath(dir_okay=False),
    help="With --out: a job's TOML file; the ranges of its [health] table replace the catalogue's.",
)
def render(root: Path, out: Path | None, runbooks: str | None, health: Path | None, *, check: bool) -> None:
    """Write what is made from the catalogue into a checkout: docs, alert rules, dashboards, runbooks."""
    require_extras("render", "render")
    if out is not None:
        if check:
            raise ConfigurationError("render takes --out or --check, got both; --check compares a checkout")
        _render_elsewhere(out, runbooks, health)
        return
    if runbooks or health:
        raise ConfigurationError("render --runbooks and --health go with --out; a checkout holds the catalogue's own")
    from otel_train.render import drifted, write_files  # noqa: PLC0415

    names = drifted(root) if check else write_files(root)
    for name in names:
        click.echo(f"{name} {'differs from the catalogue; run otel-train render' if check else 'written'}")
    sys.exit(1 if check and names else 0)


def _render_elsewhere(out: Path, runbooks: str | None, health: Path | None) -> None:
    from otel_train.catalogue import healthy_range  # noqa: PLC0415
    from otel_train.render import RUNBOOKS, monitoring_files, shipped_files, write_below  # noqa: PLC0415
    from otel_train.trainer.config import load_config  # noqa: PLC0415

    ranges = load_config(health).healthy_range if health is not None else healthy_range
    files = monitoring_files(ranges, runbooks or RUNBOOKS) | shipped_files()
    write_below(out, files)
    for name in files:
        click.echo(f"{near(out / name)} written")
