"""The commands that read a job, without changing anything of it: top, doctor and dump."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from otel_train.cli.checked_paths import OutputFile, UserPath
from otel_train.cli.command_group import Command
from otel_train.cli.complete import complete_metric
from otel_train.cli.progress_line import progress
from otel_train.exceptions import ConfigurationError
from otel_train.paths import expanded

if TYPE_CHECKING:
    from otel_train.catalogue import Ranges


@click.command(
    cls=Command,
    examples=(
        "otel-train top",
        "otel-train top /dev/shm/otel_train-$UID/my-run",
        "otel-train top ./otel-train-out/healthy-20260101-120000",
        "otel-train top --once | tee frame.txt",
        "otel-train top --svg frame.svg",
    ),
)
@click.argument("directory", required=False, metavar="[DIR]", type=UserPath(file_okay=False))
@click.option(
    "--once",
    is_flag=True,
    help="Print one frame and exit; into a pipe it is COLUMNS wide, by default 80, more where a name needs it.",
)
@click.option("--svg", type=OutputFile(), help="Save one frame as a picture there, and exit.")
@click.option(
    "--health",
    type=UserPath(dir_okay=False),
    help="A job's TOML file; the ranges of its [health] table replace the catalogue's.",
)
def top(directory: Path | None, svg: Path | None, health: Path | None, *, once: bool) -> None:
    """Watch a running job: its step, the eleven metrics and their verdicts, the mix, and each rank.

    DIR is the job's OTEL_TRAIN_RING_DIR, or the output of smoke or demo; without it, your newest job on this machine.
    The job is only read from, so that no step takes longer for it. A job that has ended or died is shown as it was.

    `!` marks the rank to look at first, and why; `*` one that is only the stalest of healthy ones. Verdicts are about
    the newest 256 log steps.

    Keys: s sorts by the next column, r reverses the order, f or / filters ranks (3,8-15 or a part of a host, phase
    or state; escape ends it), p pauses, arrows and pages scroll, q quits.
    """
    from otel_train.catalogue import healthy_range  # noqa: PLC0415
    from otel_train.read.find import find_job  # noqa: PLC0415
    from otel_train.top.one_frame import print_frame, save_frame  # noqa: PLC0415

    if not once and svg is None and not sys.stdout.isatty():
        raise ConfigurationError("top needs a terminal; give --once to print one frame")
    ranges = healthy_range
    if health is not None:
        from otel_train.trainer.config import load_config  # noqa: PLC0415

        ranges = load_config(health).healthy_range
    rings = find_job(directory)
    if svg is not None:
        save_frame(rings, svg, ranges)
    if once:
        print_frame(rings, ranges)
    elif svg is None:
        from otel_train.top.screen import run_top  # noqa: PLC0415  # its library takes long to load

        run_top(rings, ranges)


@click.command(
    cls=Command,
    examples=(
        "otel-train doctor",
        "otel-train doctor ./otel-train-out/healthy-20260101-120000 --json",
        "otel-train doctor http://127.0.0.1:9090 --run my-run --config job.toml",
        "otel-train doctor --receiver http://127.0.0.1:4317 --query http://127.0.0.1:9090",
    ),
)
@click.argument("source", default="", metavar="[SOURCE]")
@click.option("--run", default="", help="The run's id, where SOURCE holds several.")
@click.option("--config", help="The job's TOML, or a shipped one, for its [health] ranges; else SOURCE/job.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option(
    "--receiver",
    metavar="[URL]",
    is_flag=False,
    flag_value="",
    help="Check what takes a job's values instead: that of the OTEL_EXPORTER_OTLP_* variables, or the one at URL.",
)
@click.option("--query", default="", metavar="URL", help="Of what answers PromQL for the receiver's store.")
def doctor(source: str, run: str, config: str | None, receiver: str | None, query: str, *, as_json: bool) -> None:
    """Report what is wrong with a job, since when, on which rank, why, and what to do.

    SOURCE is a directory of rings (OTEL_TRAIN_RING_DIR; live or after a crash), the output of smoke or demo, a bridge's
    --state directory, a .wandb file, or the http(s) address of a Prometheus; without it, your newest job on this
    machine. Only rings have what a rank does at this moment, and whether it hangs.

    With --receiver a few points are sent, as a run doctor-… of its own that no dashboard shows and the bridge leaves
    out, and it says what a job's values would lack there: whether they arrive, also again, late and compressed, and
    under which names and labels the store keeps them. A Prometheus, VictoriaMetrics or Cortex at URL is asked for them;
    behind a collector, or Thanos receive, --query says whom to ask.

    The exit code is 0 when nothing is wrong, 1 when something is, 2 when SOURCE can't be read.
    """
    if receiver is not None:
        if source or run or config:
            raise ConfigurationError("doctor --receiver is about no job; leave SOURCE, --run and --config out")
        _check_receiver(receiver, query, as_json=as_json)
    if query:
        raise ConfigurationError("doctor --query needs --receiver, whose store it asks")
    from otel_train.diagnose.examine import examine, exit_code  # noqa: PLC0415
    from otel_train.diagnose.terminal import findings_json, print_findings  # noqa: PLC0415
    from otel_train.read.load import load  # noqa: PLC0415

    with progress("reading the run"):
        loaded = load(source, run=run)
        ranges, _ = ranges_of(source, config)
        findings = examine(loaded.history, job=loaded.job, ranges=ranges)
    if as_json:
        click.echo(findings_json(loaded.history, findings))
    else:
        print_findings(loaded.history, findings)
    sys.exit(exit_code(findings))


def _check_receiver(url: str, query: str, *, as_json: bool) -> NoReturn:
    """Check a receiver, print what is wrong, and exit."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes lines of its own about a connection that fails
    from otel_train.diagnose.examine import exit_code  # noqa: PLC0415
    from otel_train.probe.check_receiver import check_receiver  # noqa: PLC0415
    from otel_train.probe.print_check import check_json, print_check  # noqa: PLC0415

    with progress("asking the receiver"):
        check = check_receiver(url, query)
    if as_json:
        click.echo(check_json(check))
    else:
        print_check(check)
    sys.exit(exit_code(check.findings))


@click.command(
    cls=Command,
    examples=(
        "otel-train dump ./otel-train-out/healthy-20260101-120000",
        "otel-train dump DIR --kind cluster --metric 'ledger/*' --since 10m | jq -c '[.step, .\"ledger/evictions\"]'",
        "otel-train dump DIR --rank 3 --since 1000 --out rank3.csv",
        "otel-train dump DIR --out run.parquet",
        "otel-train dump ./bridge --run my-run --out run.csv",
    ),
)
@click.argument("source", required=False, metavar="[SOURCE]", type=UserPath())
@click.option("--run", default="", help="The run's id, where SOURCE holds several.")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv", "parquet"]), help="By OUT's ending, else jsonl.")
@click.option("--out", type=OutputFile(allow_dash=True), default="-", help="A file; - is stdout.")
@click.option("--since", metavar="STEP|TIME", help="From that step, or 90s, 10m, 2h, 1d before the newest record.")
@click.option("--rank", "ranks", type=int, multiple=True, help="Only that rank's ring; may be given again.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_metric,
    help="Only that value, by its wandb key, or a pattern such as 'ledger/*'; may be given again.",
)
@click.option("--kind", type=click.Choice(["rank", "cluster"]), help="Only ranks' own values, or only the cluster's.")
@click.option("--all-attempts", is_flag=True, help="Older attempts in SOURCE too, not only the newest.")
def dump(
    source: Path | None,
    run: str,
    form: str | None,
    out: Path,
    since: str | None,
    *,
    ranks: tuple[int, ...],
    metrics: tuple[str, ...],
    kind: str | None,
    all_attempts: bool,
) -> None:
    """Write what a running or a dead job has recorded, as JSON lines, CSV or Parquet.

    SOURCE is the job's OTEL_TRAIN_RING_DIR, the output of smoke or demo, a bridge's --state directory, or a .wandb
    file; without it, your newest job on this machine. wandb files have the cluster's values only, as rank 0's.

    One object or row is one record: run, attempt, rank, kind (rank: its own values of an interval; cluster: those of
    all ranks; rank_logged, cluster_logged: what telemetry.log gave to that step), step, time (RFC 3339, UTC), time_ns,
    then the values by their wandb keys (see `otel-train catalogue`; a histogram has none). They come rank by rank, as
    they were written. A value that nobody measured in an interval is left out (CSV: empty, Parquet: null). NaN and
    infinities are the texts NaN, Infinity and -Infinity, in Parquet themselves. A value whose key is one of these names
    gets the prefix metric/.

    Torn records are left out and counted.
    """
    from otel_train.read.dump import Selection, parse_since  # noqa: PLC0415
    from otel_train.read.dump_formats import format_of, write_dump  # noqa: PLC0415
    from otel_train.read.wandb_dump import open_dump  # noqa: PLC0415
    from otel_train.ring import Kind  # noqa: PLC0415

    file = None if str(out) == "-" else out
    since_step, since_ns = parse_since(since) if since is not None else (None, None)
    selection = Selection(
        run=run,
        since_step=since_step,
        since_ns=since_ns,
        ranks=ranks,
        metrics=metrics,
        kind=Kind[kind.upper()] if kind else None,
        all_attempts=all_attempts,
    )
    chosen = format_of(form, file)
    with progress("writing the records") if file is not None else nullcontext():  # rows on a terminal show it
        content = open_dump(source, selection)
        write_dump(content, chosen, file)
    for problem in content.damaged:
        click.echo(f"otel-train: left out: {problem}", err=True)
    if content.torn:
        click.echo(f"otel-train: {content.torn} records were torn, or overwritten while they were read", err=True)
    content.close()


def ranges_of(source: str, config: str | None) -> tuple[Ranges, Path | None]:
    """Return the healthy ranges for a run, and the job's TOML that they are from, where there is one.

    Args:
        source: The run; a smoke run's output has its configuration in it.
        config: A TOML file or the name of a shipped one, which overrides that.
    """
    from otel_train.catalogue import healthy_range  # noqa: PLC0415

    beside = expanded(source) / "job.toml"
    if not config and not (source and beside.is_file()):
        return healthy_range, None
    from otel_train.trainer.config import find_config, load_config  # noqa: PLC0415

    path = find_config(config) if config else beside
    return load_config(path).healthy_range, path
