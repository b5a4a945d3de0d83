"""Run the reference job under torchrun, wait until all has arrived in its receiver, and judge it."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otel_train.catalogue import Ranges
from otel_train.diagnose.fitted_ranges import fitted_ranges
from otel_train.diagnose.judgement import Judgement, judge
from otel_train.exceptions import ConfigurationError, JobError
from otel_train.paths import absolute
from otel_train.read.history import History
from otel_train.read.load import RINGS_FOLDER
from otel_train.smoke.child_process import cause, ended_within, running_process
from otel_train.smoke.receiver import given_receiver, own_bridge
from otel_train.trainer.config import TrainerConfig, load_config

ARRIVAL = 60.0
"""Seconds that the last rows may take after the job has ended."""
SENDING = "OTEL_EXPORTER_OTLP_"
"""Prefix of the variables about sending (headers, certificates), which are kept where the user names a receiver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeOptions:
    """Options of a smoke run; see `otel-train smoke --help`."""

    config: Path
    """The configuration file."""
    out: Path
    """The output directory."""
    nproc: int = 2
    """Ranks."""
    steps: int | None = None
    """Number of steps that overrides the configuration's."""
    events: bool = False
    """Whether the ranks write their events."""
    endpoint: str = ""
    """An OTLP/gRPC receiver that runs already, such as http://127.0.0.1:4317; empty for a bridge of its own."""

    def __post_init__(self) -> None:
        if self.nproc < 1:
            raise ConfigurationError(f"--nproc must be positive, got {self.nproc}")
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"--endpoint must begin with http:// or https://, got {self.endpoint!r}; try http://127.0.0.1:4317"
            )

    def load(self) -> TrainerConfig:
        """Return the configuration, with the number of steps replaced.

        Raises:
            ConfigurationError: It is wrong.
        """
        return load_config(self.config, {"job": {"steps": self.steps}} if self.steps is not None else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeResult:
    """Result of a smoke run."""

    name: str
    config: TrainerConfig
    out: Path
    world_size: int
    run_id: str
    rows: int
    """Rows in the wandb file, or steps that the given receiver acknowledged."""
    judgements: list[Judgement]
    wandb_file: Path | None
    """None where a receiver was given: its files are not known here."""

    @property
    def unhealthy(self) -> list[str]:
        """The keys that are out of their range."""
        return [judgement.key for judgement in self.judgements if not judgement.healthy]

    @property
    def expected_unhealthy(self) -> list[str]:
        """The keys that the configuration drives out of their range."""
        return [judgement.key for judgement in self.judgements if judgement.key in self.config.expect.unhealthy]

    @property
    def passed(self) -> bool:
        """Whether the verdict is what the configuration expects, over all the steps."""
        return self.unhealthy == self.expected_unhealthy and self.rows == log_steps(self.config)

    def as_json(self) -> dict[str, Any]:
        """Return the content of `result.json`."""
        ledger, horizon = self.config.ledger, self.config.mixing.horizon
        return {
            "config": self.name,
            "run_id": self.run_id,
            "world_size": self.world_size,
            "steps": self.config.job.steps,
            "passed": self.passed,
            "metrics": {
                judgement.key: {
                    "last": judgement.last,
                    "mean": judgement.mean,
                    "max": judgement.max,
                    "healthy": judgement.healthy,
                }
                for judgement in self.judgements
            },
            "unhealthy": self.unhealthy,
            "expected_unhealthy": self.expected_unhealthy,
            "ledger": {
                "capacity": ledger.capacity,
                "recently_evicted": ledger.recently_evicted or ledger.capacity,
            },
            "mix_horizon": int(horizon) if horizon.is_integer() else horizon,
            "wandb_file": str(self.wandb_file.relative_to(self.out)) if self.wandb_file else None,
            "rings": RINGS_FOLDER,
        }


def log_steps(config: TrainerConfig) -> int:
    """Return the number of rows that the job writes."""
    return config.job.steps // config.telemetry.log_every


def run_smoke(options: SmokeOptions, on_progress: Callable[[int, int], None] = lambda *_: None) -> SmokeResult:
    """Run the job and judge it; `result.json` is written into the output directory.

    Args:
        options: Options of the run.
        on_progress: Called with (rows arrived, rows expected) while it runs.

    Raises:
        ConfigurationError: The configuration is wrong, or the output directory can't be made.
        JobError: The receiver or the job failed; the message names its log.
    """
    config = options.load()
    out = absolute(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {options.out} can't be made: {error.strerror}") from error
    (out / "job.toml").write_bytes(options.config.read_bytes())
    run_id = f"{options.config.stem}-{uuid.uuid4().hex[:8]}"
    expected = log_steps(config)
    rings = out / RINGS_FOLDER
    receiver = (
        given_receiver(options.endpoint, rings, run_id) if options.endpoint else own_bridge(out, run_id, _environment())
    )
    with receiver as to:
        environment = _environment(SENDING if options.endpoint else "") | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": to.endpoint,
            "OTEL_TRAIN_RUN_ID": run_id,
            "OTEL_TRAIN_RING_DIR": str(rings),
            # Rank 0 writes two records a step, and all of them are read in the end.
            "OTEL_TRAIN_RING_RECORDS": str(max(4096, 4 * config.job.steps)),
            "OTEL_TRAIN_RING_BYTES": str(2**30),
        }
        with running_process(_job_command(options, out), out / "train.log", environment) as job:
            while not ended_within(job, 0.2):
                on_progress(to.arrived(), expected)
        if job.returncode != 0:
            raise JobError(f"the job ended with code {job.returncode}: {cause(out / 'train.log')}")
        deadline = time.monotonic() + ARRIVAL
        while (arrived := to.arrived()) < expected:
            on_progress(arrived, expected)
            problem = to.problem() or ("" if time.monotonic() < deadline else f"{to.endpoint} takes no more")
            if problem:
                raise JobError(f"{arrived} of {expected} steps have arrived: {problem}")
            time.sleep(0.1)
        on_progress(arrived, expected)
    history, wandb_file = to.history()
    result = SmokeResult(
        name=options.config.stem,
        config=config,
        out=out,
        world_size=options.nproc,
        run_id=run_id,
        rows=len(history),
        judgements=judge(history, options.nproc, _ranges_of(history, options.nproc, config)),
        wandb_file=wandb_file,
    )
    (out / "result.json").write_text(json.dumps(result.as_json(), indent=2) + "\n")
    return result


def _ranges_of(history: Sequence[Mapping[str, float]], world_size: int, config: TrainerConfig) -> Ranges:
    """Return the job's healthy ranges: few picks can't be as near to their targets as many."""
    run = History("the wandb file", "", world_size=world_size)
    for step, values in enumerate(history, start=1):
        run.cluster.add(step, 0, values)
    run.infer_from_cluster()
    return fitted_ranges(run, config.healthy_range)


def _job_command(options: SmokeOptions, out: Path) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(options.nproc)]
    command += ["-m", "otel_train.trainer", "--config", str(absolute(options.config))]
    if options.steps is not None:
        command += ["--steps", str(options.steps)]
    if options.events:
        command += ["--events", str(out / "events")]
    return command


def _environment(kept: str = "") -> dict[str, str]:
    """Return this process's environment without what would send the job's telemetry elsewhere.

    Args:
        kept: Prefix of such variables that are kept all the same; empty for none.
    """
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "WANDB_")) or (kept and name.startswith(kept))
    }
    # One thread a rank: the ranks share this machine's cores.
    return {"OMP_NUM_THREADS": "1"} | own
