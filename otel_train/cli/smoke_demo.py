"""The commands that run the reference job: smoke and demo."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otel_train.cli.checked_paths import OutputFolder
from otel_train.cli.command_group import Command, near
from otel_train.cli.complete import complete_config
from otel_train.extras import require_extras

if TYPE_CHECKING:
    from otel_train.smoke import SmokeResult


@click.command(
    cls=Command,
    examples=(
        "otel-train smoke undersized_ledger --nproc 4 --events",
        "otel-train smoke ./job.toml --steps 200 --out ./look",
        "otel-train smoke healthy --endpoint http://127.0.0.1:4317 --json",
    ),
)
@click.argument("config", shell_complete=complete_config)
@click.option("--nproc", default=2, show_default=True, help="Ranks.")
@click.option("--steps", type=int, help="Number of steps; overrides the configuration's.")
@click.option("--out", type=OutputFolder(), help="Where to write; a new folder here.")
@click.option("--events", is_flag=True, help="Write each rank's events to OUT/events, for a replay.")
@click.option("--endpoint", default="", help="An OTLP/gRPC receiver that runs already, instead of a bridge of its own.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of a table.")
def smoke(
    config: str, nproc: int, steps: int | None, out: Path | None, endpoint: str, *, events: bool, as_json: bool
) -> None:
    """Run the reference job with CONFIG under torchrun and judge every metric.

    CONFIG is a TOML file or one of the shipped ones: healthy, starved_reader, collapsed_mix, undersized_ledger.
    The exit code is 0 when the verdict is what the configuration expects.

    With --endpoint the values go to a collector or bridge of yours (OTEL_EXPORTER_OTLP_HEADERS and _CERTIFICATE are
    used), and the verdict is about what it acknowledged.
    """
    result = _smoke(config, nproc, steps, out, endpoint=endpoint, events=events, quiet=as_json)
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=2))
    sys.exit(0 if result.passed else 1)


@click.command(cls=Command, examples=("otel-train demo", "otel-train demo --out ./look"))
@click.option("--out", type=OutputFolder(), help="Where to write; a new folder here.")
def demo(out: Path | None) -> None:
    """Run the healthy configuration on two ranks, and say where to look."""
    result = _smoke("healthy", 2, None, out)
    assert result.wandb_file is not None, "the bridge was its own"
    command = Path(sys.argv[0]) if Path(sys.argv[0]).name == "otel-train" else Path("otel-train")
    click.echo(
        f"""
Where to look:
  the verdict as JSON     {near(result.out / "result.json")}
  what training printed   {near(result.out / "train.log")}
  what doctor says of it  {command} doctor {near(result.out)}
  the run as a page       {command} report {near(result.out)} -o report.html
  its ranks, as live      {command} top {near(result.out)}
  its records as data     {command} dump {near(result.out)}
  the run for wandb       {near(result.wandb_file)}
  to upload it            {command} sync {near(result.out)}
  what the metrics mean   {command} catalogue
  a job that goes wrong   {command} smoke starved_reader   (or collapsed_mix, undersized_ledger)"""
    )
    sys.exit(0 if result.passed else 1)


def _smoke(
    config: str,
    nproc: int,
    steps: int | None,
    out: Path | None,
    *,
    endpoint: str = "",
    events: bool = False,
    quiet: bool = False,
) -> SmokeResult:
    require_extras("the reference job", *(("train",) if endpoint else ("train", "bridge")))
    from otel_train.smoke import SmokeOptions, run_smoke  # noqa: PLC0415
    from otel_train.smoke.table import print_result, progress_bar  # noqa: PLC0415
    from otel_train.trainer.config import find_config  # noqa: PLC0415

    path = find_config(config)
    folder = out or Path("otel-train-out") / f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    options = SmokeOptions(config=path, out=folder, nproc=nproc, steps=steps, events=events, endpoint=endpoint)
    options.load()  # an error in it is reported before a bar is drawn
    with progress_bar(f"{path.stem} on {nproc} ranks", quiet=quiet) as on_progress:
        result = run_smoke(options, on_progress)
    if not quiet:
        print_result(result)
    return result
