"""The command `otel-train`. Each command imports what it needs when it runs."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from otel_train import __version__
from otel_train.exceptions import ConfigurationError, OtelTrainError

if TYPE_CHECKING:
    from otel_train.smoke import SmokeResult


class _Command(click.Group):
    """A group whose commands end with one line and an exit code when something is wrong."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except OtelTrainError as error:
            click.echo(f"otel-train: {error}", err=True)
            sys.exit(2 if isinstance(error, ConfigurationError) else 1)


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Telemetry for distributed PyTorch jobs that mix data streams and keep state in a sharded ledger."""


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def catalogue(*, as_json: bool) -> None:
    """Print every metric: name, unit, reduction, wandb key, healthy range, remedy."""
    from otel_train.catalogue.table import catalogue_json, print_catalogue  # noqa: PLC0415

    if as_json:
        click.echo(json.dumps(catalogue_json(), indent=2))
    else:
        print_catalogue()


@main.command()
@click.option("--check", is_flag=True, help="Change nothing; fail when a file differs from what would be written.")
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="The checkout.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write alert rules and dashboards for an installation of your own there, and leave the checkout alone.",
)
@click.option("--runbooks", help="With --out: the address that the alerts' links begin with.")
@click.option(
    "--health",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --out: a job's TOML file; the ranges of its [health] table replace the catalogue's.",
)
def render(root: Path, out: Path | None, runbooks: str | None, health: Path | None, *, check: bool) -> None:
    """Write what is made from the catalogue into a checkout: docs, alert rules, dashboards, runbooks.

    Example: otel-train render --out ./monitoring --health job.toml --runbooks https://wiki.example/runbooks
    """
    if find_spec("grafana_foundation_sdk") is None:
        raise ConfigurationError("render needs packages that are not installed: pip install 'otel-train[render]'")
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


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--rank-interval", default=10.0, show_default=True, help="Seconds between exports of a rank's values.")
@click.option("--grace", default=20.0, show_default=True, help="Seconds that it goes on at most after SIGTERM.")
def sidecar(directory: Path, rank_interval: float, grace: float) -> None:
    """Send what the rings in DIRECTORY hold over OTLP, until told to stop.

    After SIGTERM it goes on until all ranks have ended and their records are sent; SIGINT, or a second SIGTERM, ends it
    after one more try to send.

    The standard OTEL_EXPORTER_OTLP_* variables say where to. A job that is to use it runs with
    OTEL_TRAIN_SIDECAR=external and OTEL_TRAIN_RING_DIR=DIRECTORY.
    """
    from otel_train.sidecar import run_sidecar  # noqa: PLC0415

    _log_to_stderr()
    run_sidecar(directory, rank_interval=rank_interval, grace=grace)


@main.command()
@click.option("--listen", default="127.0.0.1:4317", show_default=True, help="HOST:PORT; port 0 takes a free one.")
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="Inbox and wandb files.")
@click.option("--wandb-mode", type=click.Choice(["offline", "online"]), default="offline", show_default=True)
@click.option("--project", default="otel-train", show_default=True, help="The wandb project.")
@click.option(
    "--settle", default=30.0, show_default=True, help="Seconds after which a step that lacks points gets its row."
)
@click.option("--max-bytes", default=4 * 2**30, show_default=True, help="Of the inbox, where rows wait for wandb.")
@click.option("--max-series", default=10_000, show_default=True, help="Of one run; points of further ones are refused.")
@click.option("--token", envvar="OTEL_TRAIN_BRIDGE_TOKEN", default="", help="What senders must give as bearer token.")
@click.option("--tls-certificate", type=click.Path(path_type=Path), help="PEM file of the server's certificate chain.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM file of its private key.")
@click.option("--check", is_flag=True, help="Ask the bridge that listens there whether it serves; exit code 0 or 1.")
def bridge(state: Path | None, *, check: bool, **settings: Any) -> None:
    """Receive OTLP metrics over gRPC and log one wandb row a step.

    With OTEL_EXPORTER_OTLP_ENDPOINT set the bridge's own metrics go there.

    Example: otel-train bridge --state ./bridge --wandb-mode online
    """
    if check:
        from otel_train.bridge.probe import serving  # noqa: PLC0415

        sys.exit(0 if serving(settings["listen"], tls=bool(settings["tls_certificate"])) else 1)
    if state is None:
        raise ConfigurationError("bridge --state is missing; give the directory for the inbox and the wandb files")
    from otel_train.bridge import BridgeConfig, run_bridge  # noqa: PLC0415

    _log_to_stderr()
    code = run_bridge(BridgeConfig(state=state, **settings))
    # All runs are finished, or the time for it is over. wandb's own exit hook waits for its service without a bound.
    logging.shutdown()
    os._exit(code)


@main.command()
@click.argument("config")
@click.option("--nproc", default=2, show_default=True, help="Ranks.")
@click.option("--steps", type=int, help="Steps, in place of the configuration's.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where to write; a new folder here.")
@click.option("--events", is_flag=True, help="Write each rank's events to OUT/events, for a replay.")
@click.option(
    "--endpoint", default="", help="An OTLP/gRPC receiver that runs already, in place of a bridge of its own."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of a table.")
def smoke(
    config: str, nproc: int, steps: int | None, out: Path | None, endpoint: str, *, events: bool, as_json: bool
) -> None:
    """Run the reference job with CONFIG under torchrun and judge every metric.

    CONFIG is a TOML file or one of the shipped ones: healthy, starved_reader, collapsed_mix, undersized_ledger.
    The exit code is 0 when the verdict is what the configuration expects.

    With --endpoint the values go to a collector or bridge of yours (OTEL_EXPORTER_OTLP_HEADERS and _CERTIFICATE are
    used), and the verdict is about what it acknowledged.

    Example: otel-train smoke undersized_ledger --nproc 4 --events
    """
    result = _smoke(config, nproc, steps, out, endpoint=endpoint, events=events, quiet=as_json)
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=2))
    sys.exit(0 if result.passed else 1)


@main.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where to write; a new folder here.")
def demo(out: Path | None) -> None:
    """Run the healthy configuration on two ranks, and say where to look."""
    result = _smoke("healthy", 2, None, out)
    assert result.wandb_file is not None, "the bridge was its own"
    command = Path(sys.argv[0]) if Path(sys.argv[0]).name == "otel-train" else Path("otel-train")
    click.echo(
        f"""
Where to look:
  the verdict as JSON     {_near(result.out / "result.json")}
  what training printed   {_near(result.out / "train.log")}
  the run for wandb       {_near(result.wandb_file)}
  to upload it            {command.with_name("wandb")} sync {_near(result.wandb_file.parent)}
  what the metrics mean   {command} catalogue
  a job that goes wrong   {command} smoke starved_reader   (or collapsed_mix, undersized_ledger)"""
    )
    sys.exit(0 if result.passed else 1)


@main.command()
@click.argument("source", default="")
@click.option("--run", default="", help="The run's id, where SOURCE holds several.")
@click.option("--config", help="The job's TOML file, or a shipped one: its [health] ranges replace the catalogue's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def doctor(source: str, run: str, config: str | None, *, as_json: bool) -> None:
    r"""Say what is wrong with a job, since when, on which rank, why, and what to do.

    SOURCE is a directory of rings (OTEL_TRAIN_RING_DIR; live or after a crash), the output of `smoke` or `demo`, a
    bridge's --state directory, a .wandb file, or the http(s) address of a Prometheus. Without it the newest job whose
    rings are in /dev/shm is looked at. Only rings tell what a rank does at this moment, and whether it hangs.

    The exit code is 0 when nothing is wrong, 1 when something is, 2 when SOURCE can't be read.

    \b
    Examples:
      otel-train doctor
      otel-train doctor ./otel-train-out/healthy-20260801-120000 --json
      otel-train doctor http://127.0.0.1:9090 --run my-run --config job.toml
    """
    from otel_train.catalogue import healthy_range  # noqa: PLC0415
    from otel_train.inspect.examine import examine, exit_code  # noqa: PLC0415
    from otel_train.inspect.load import load, newest_job  # noqa: PLC0415
    from otel_train.inspect.terminal import as_json as findings_json  # noqa: PLC0415
    from otel_train.inspect.terminal import print_findings  # noqa: PLC0415
    from otel_train.trainer.config import find_config, load_config  # noqa: PLC0415

    ranges = load_config(find_config(config)).healthy_range if config else healthy_range
    loaded = load(source or str(newest_job()), run=run)
    findings = examine(loaded.history, job=loaded.job, ranges=ranges)
    if as_json:
        click.echo(findings_json(loaded.history, findings))
    else:
        print_findings(loaded.history, findings)
    sys.exit(exit_code(findings))


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
    from otel_train.smoke import SmokeOptions, run_smoke  # noqa: PLC0415
    from otel_train.smoke.table import print_result, progress_bar  # noqa: PLC0415
    from otel_train.trainer.config import find_config  # noqa: PLC0415

    path = find_config(config)
    folder = out or Path("otel-train-out") / f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    options = SmokeOptions(config=path, out=folder, nproc=nproc, steps=steps, events=events, endpoint=endpoint)
    options.load()  # what is wrong with it is said before a bar is drawn
    with progress_bar(f"{path.stem} on {nproc} ranks", quiet=quiet) as on_progress:
        result = run_smoke(options, on_progress)
    if not quiet:
        print_result(result)
    return result


def _render_elsewhere(out: Path, runbooks: str | None, health: Path | None) -> None:
    from otel_train.catalogue import healthy_range  # noqa: PLC0415
    from otel_train.render import RUNBOOKS, monitoring_files, write_below  # noqa: PLC0415
    from otel_train.trainer.config import load_config  # noqa: PLC0415

    ranges = load_config(health).healthy_range if health is not None else healthy_range
    files = monitoring_files(ranges, runbooks or RUNBOOKS)
    write_below(out, files)
    for name in files:
        click.echo(f"{_near(out / name)} written")


def _near(path: Path) -> Path:
    """Return a path as seen from here, where it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
