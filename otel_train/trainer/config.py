"""The reference job's configuration: the tables and keys of a TOML file, checked. Needs no torch."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from otel_train.catalogue import HEADLINE_KEYS, JUDGED_KEYS, HealthyRange, Per, Statistic, healthy_range
from otel_train.exceptions import ConfigurationError
from otel_train.paths import expanded
from otel_train.trainer.toml_reader import read_table

MAX_BYTES = 2**20
"""Largest size of a configuration's file, in bytes."""
MAX_MESSAGE = 1000
"""Most characters of an error's message, which shows a value of the file."""


def _check(holds: object, rule: str, value: object, remedy: str) -> None:
    if not holds:
        raise ConfigurationError(f"{rule}, got {value!r}; {remedy}")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobConfig:
    """Length of the job, and its seed."""

    steps: int = 60
    """Optimizer steps."""
    seed: int = 0
    """Seed of the model's weights, the order of streams and the choice of readers."""

    def __post_init__(self) -> None:
        _check(self.steps > 0, "job.steps must be positive", self.steps, "60 are enough for a look")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The byte-level recurrent encoder."""

    embedding: int = 32
    """Width of a byte's embedding."""
    hidden: int = 64
    """Width of the GRU's state, which is what the ledger keeps for each stream."""
    learning_rate: float = 0.01
    """Adam's step size."""

    def __post_init__(self) -> None:
        _check(self.embedding > 0, "model.embedding must be positive", self.embedding, "32 is the default")
        _check(self.hidden > 0, "model.hidden must be positive", self.hidden, "64 is the default")
        _check(
            self.learning_rate > 0, "model.learning_rate must be positive", self.learning_rate, "0.01 is the default"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Source of the streams: each file that matches a pattern is one stream."""

    modalities: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Glob patterns by modality; `{stdlib}` and `{site}` stand for Python's own files and the installed packages."""
    chunk: int = 64
    """Bytes in a row, T."""
    min_bytes: int = 4096
    """Shorter files are left out."""
    max_bytes: int = 65536
    """Most bytes that are read of a longer file."""
    max_streams: int = 64
    """Streams of one modality at most."""

    def __post_init__(self) -> None:
        _check(self.modalities, "data.modalities must name at least one", self.modalities, "add [data.modalities]")
        _check(self.chunk > 0, "data.chunk must be positive", self.chunk, "64 is the default")
        _check(self.min_bytes >= 2, "data.min_bytes must be at least 2", self.min_bytes, "a row needs two bytes")
        _check(self.max_bytes >= 2, "data.max_bytes must be at least 2", self.max_bytes, "a row needs two bytes")
        _check(self.max_streams > 0, "data.max_streams must be positive", self.max_streams, "64 is the default")


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightChange:
    """Weights from a step on."""

    step: int
    """The first step that they hold for."""
    weights: dict[str, float]
    """Weight by modality."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixingConfig:
    """Mix of the streams; see `StreamMixingDataset`."""

    weights: dict[str, float] = field(default_factory=dict)
    """Weight by modality; equal weights when empty."""
    schedule: tuple[WeightChange, ...] = ()
    """Later changes of the weights."""
    readers: int = 4
    """Reader slots of a rank, K."""
    slots: tuple[str, ...] = ()
    """The modality of each slot; by weight when empty."""
    reader_bias: tuple[float, ...] = ()
    """A factor for each slot within its modality; equal when empty."""
    rows: int = 4
    """Rows of a rank's batch."""
    at_end: str = "cycle"
    """Rule for a slot whose stream runs out: next, cycle, again."""
    horizon: float = 4096.0
    """Picks of a rank over which the mix divergence is taken."""
    workers: int = 0
    """DataLoader worker processes of a rank."""

    def __post_init__(self) -> None:
        _check(self.readers > 0, "mixing.readers must be positive", self.readers, "4 is the default")
        _check(self.rows > 0, "mixing.rows must be positive", self.rows, "4 is the default")
        _check(self.workers >= 0, "mixing.workers must not be negative", self.workers, "0 reads in the rank itself")
        horizon = self.horizon > 0 and math.isfinite(self.horizon)
        _check(horizon, "mixing.horizon must be positive and finite", self.horizon, "4096 is the default")


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerConfig:
    """The sharded state ledger; see `StateLedger`."""

    capacity: int = 64
    """Entries that a rank holds."""
    max_idle_steps: int = 0
    """Steps after which an unused entry is dropped; 0 for never."""
    recently_evicted: int = 0
    """Keys of evicted entries that are remembered; 0 for as many as the capacity."""

    def __post_init__(self) -> None:
        remedy = "set it to the number of streams a rank should hold"
        _check(self.capacity > 0, "ledger.capacity must be positive", self.capacity, remedy)
        _check(
            self.max_idle_steps >= 0, "ledger.max_idle_steps must not be negative", self.max_idle_steps, "0 is never"
        )
        remedy = "0 is as many as the capacity"
        _check(
            self.recently_evicted >= 0, "ledger.recently_evicted must not be negative", self.recently_evicted, remedy
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TelemetryConfig:
    """Arguments of `otel_train.init`."""

    log_every: int = 1
    """Steps in an interval."""
    blocking: bool = False
    """Whether a step waits for the cluster's values."""
    rank_interval: float = 10.0
    """Seconds between two exports of a rank's own values."""

    def __post_init__(self) -> None:
        _check(self.log_every > 0, "telemetry.log_every must be positive", self.log_every, "1 logs every step")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """Folder and interval of the job's checkpoints."""

    folder: str = ""
    """A folder that all ranks see; a job begins from the newest checkpoint in it. Empty for none."""
    interval: int = 0
    """Steps between two checkpoints; 0 saves at the end only."""
    keep: int = 2
    """Newest checkpoints that are kept."""

    def __post_init__(self) -> None:
        _check(self.interval >= 0, "checkpoint.interval must not be negative", self.interval, "0 saves at the end only")
        _check(self.keep > 0, "checkpoint.keep must be positive", self.keep, "2 is the default")

    def due(self, step: int, steps: int) -> bool:
        """Tell whether to save after a step of a job of so many."""
        return step == steps or (self.interval > 0 and step % self.interval == 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RangeConfig:
    """A range that overrides the catalogue's for this job; what is not given stays."""

    low: float | None = None
    """The smallest healthy value."""
    high: float | None = None
    """The largest healthy value."""
    statistic: Statistic | None = None
    """Figure of the curve that is judged: mean, max, last."""
    per: Per | None = None
    """Divisor of the figure: cluster (nothing), rank, pick."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectConfig:
    """Verdict that the configuration shows."""

    unhealthy: tuple[str, ...] = ()
    """The wandb keys that must be out of their range, and no others."""

    def __post_init__(self) -> None:
        for key in self.unhealthy:
            _check(key in HEADLINE_KEYS, "expect.unhealthy must name headline keys", key, "see `otel-train catalogue`")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerConfig:
    """A reference job."""

    data: DataConfig
    job: JobConfig = field(default_factory=JobConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    ledger: LedgerConfig = field(default_factory=LedgerConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    health: dict[str, RangeConfig] = field(default_factory=dict)
    """Ranges by wandb key that replace the catalogue's."""
    expect: ExpectConfig = field(default_factory=ExpectConfig)

    def __post_init__(self) -> None:
        for key in self.health:
            _check(key in JUDGED_KEYS, "health must name keys with a range", key, "see `otel-train catalogue`")
        for key in self.health:
            self.healthy_range(key)

    def healthy_range(self, key: str) -> HealthyRange:
        """Return the range of a judged key: the catalogue's, with the values of `[health]`."""
        own = asdict(self.health.get(key, RangeConfig()))
        return replace(healthy_range(key), **{name: value for name, value in own.items() if value is not None})


def shipped_configs() -> dict[str, Path]:
    """Return the configurations that come with the package, by name."""
    folder = Path(str(resources.files("otel_train.trainer"))) / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_config(name: str) -> Path:
    """Return the path of a shipped configuration, or of a file.

    Raises:
        ConfigurationError: There is neither.
    """
    shipped = shipped_configs()
    if name in shipped:
        return shipped[name]
    path = expanded(name)
    if not path.is_file():
        raise ConfigurationError(f"configuration {name!r} is neither a file nor one of {', '.join(shipped)}")
    return path


def load_config(path: Path, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> TrainerConfig:
    """Read a configuration.

    Args:
        path: The TOML file.
        overrides: Values by table and key that override the file's.

    Raises:
        ConfigurationError: The file can't be read, is not TOML, or breaks a rule; the message begins with its name.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{path}: has more than {MAX_BYTES} bytes; a configuration has some hundred")
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # a number of 5000 digits and deep nesting have no error of their own
        raise ConfigurationError(f"{path}: is not TOML: {error!s:.{MAX_MESSAGE}}") from error
    try:
        for name, values in (overrides or {}).items():
            if isinstance(table.setdefault(name, {}), dict):
                table[name].update(values)
        return read_table(TrainerConfig, table)
    except (ConfigurationError, RecursionError) as error:  # a value may be nested too deep for its own message
        raise ConfigurationError(f"{path.name}: {error!s:.{MAX_MESSAGE}}") from error
