"""Read the environment: the one module in a rank's process that does."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from otel_train.endpoint import Endpoint
from otel_train.exceptions import ConfigurationError
from otel_train.ring import RingSize, default_base
from otel_train.step.launchers import TORCHRUN, Launcher, launchers
from otel_train.step.ray_train import ray_run_id
from otel_train.step.resource import resource_attributes, valid_text
from otel_train.step.scheduler import ScheduledJob, scheduled_job
from otel_train.step.torchrun import Launch, launch_of
from otel_train.variables import warning_of_unknown

_RING = RingSize()
_FILE_NAME, _OTHER_CHARACTERS = re.compile(r"[A-Za-z0-9_-]{1,64}"), re.compile(r"[^A-Za-z0-9_-]")
_TRUE = {"1", "true"}


class Environment(NamedTuple):
    """Variables of the environment about this process and its telemetry."""

    rank: int = 0
    """RANK, as torchrun sets it, or what mpirun sets, or srun for its tasks."""
    local_rank: int | None = None
    """LOCAL_RANK likewise; None where no launcher sets it."""
    world_size: int = 1
    """WORLD_SIZE likewise."""
    local_world_size: int | None = None
    """LOCAL_WORLD_SIZE likewise; None where no launcher sets it."""
    disabled: bool = False
    """OTEL_SDK_DISABLED=true: no file, no process, no cost."""
    attributes: Mapping[str, str] = MappingProxyType({})
    """OTEL_RESOURCE_ATTRIBUTES, and OTEL_SERVICE_NAME as one of them."""
    run_id: str = ""
    """OTEL_TRAIN_RUN_ID."""
    launch: Launch | None = None
    """torchrun's launch, or Ray Train's run; None where neither has started this rank."""
    scheduled: ScheduledJob | None = None
    """The scheduler's job, after which the run is named by default."""
    ring_dir: str = ""
    """OTEL_TRAIN_RING_DIR; empty for a directory of the run's own in memory."""
    ring_records: int = _RING.records
    """OTEL_TRAIN_RING_RECORDS: how many records a ring holds at most."""
    ring_bytes: int = _RING.max_bytes
    """OTEL_TRAIN_RING_BYTES: how many bytes a ring takes at most."""
    external_sidecar: bool = False
    """OTEL_TRAIN_SIDECAR=external: the platform starts the sidecar."""
    endpoint: Endpoint = Endpoint()
    """Receiver that the sidecar sends to; read here too, since an error in its log would go unseen."""
    host: str = ""
    """The host's name."""
    unknown: str = ""
    """Message about variables with our prefix that nothing reads; empty where there are none."""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Environment:
        """Read the environment.

        Raises:
            ConfigurationError: A variable does not hold what it must; the message names it.
        """
        sidecar = environ.get("OTEL_TRAIN_SIDECAR", "")
        if sidecar not in ("", "embedded", "external"):
            raise ConfigurationError(f"OTEL_TRAIN_SIDECAR must be embedded or external, got {sidecar!r}")
        host = valid_text(socket.gethostname())
        disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() in _TRUE
        attributes = resource_attributes(environ)
        of_ray = ray_run_id()
        given = tuple(launchers(environ))  # once: a Slurm task looks its step up among the processes above it
        return cls(
            rank=_launched(environ, given, "rank", 0)[1] or 0,
            local_rank=_launched(environ, given, "local_rank", 0)[1],
            world_size=_launched(environ, given, "world_size", 1)[1] or 1,
            local_world_size=_launched(environ, given, "local_world_size", 1)[1],
            disabled=disabled,
            attributes=attributes,
            run_id=environ.get("OTEL_TRAIN_RUN_ID", ""),
            launch=Launch(of_ray, of_ray) if of_ray else launch_of(environ, host),
            # Ray's worker may be started again on another node, or in another pod: they don't name its run.
            scheduled=None if of_ray else scheduled_job(environ, attributes),
            ring_dir=environ.get("OTEL_TRAIN_RING_DIR", ""),
            ring_records=_number(environ, "OTEL_TRAIN_RING_RECORDS", _RING.records, 2),
            ring_bytes=_number(environ, "OTEL_TRAIN_RING_BYTES", _RING.max_bytes, 1),
            external_sidecar=sidecar == "external",
            endpoint=Endpoint() if disabled else Endpoint.read(environ),
            host=host,
            unknown=warning_of_unknown(environ),
        )

    def ring_directory(self, run_id: str) -> Path:
        """Return the directory for the rings of a run on this node, where the user has chosen none.

        No two runs have the same: an id that can't be a file's name, or a long one, has its hash after a dot, and no
        other name has a dot.
        """
        if _FILE_NAME.fullmatch(run_id):
            return default_base() / run_id
        name = _OTHER_CHARACTERS.sub("_", run_id)[:40]
        return default_base() / f"{name or '_'}.{hashlib.sha256(run_id.encode('utf-8', 'replace')).hexdigest()[:16]}"

    @staticmethod
    def run_directories() -> Iterator[Path]:
        """Yield the directories of the runs whose rings are on this node, where the users of these chose none."""
        with contextlib.suppress(OSError):
            yield from default_base().iterdir()


def launched_world_size(environ: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Return how many ranks the launcher has started, and the variable that says so; 1 where none does.

    Raises:
        ConfigurationError: The variable holds no such number.
    """
    name, count = _launched(environ, launchers(environ), "world_size", 1)
    return name, 1 if count is None else count


def store_outlives_ranks(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether torchrun starts ranks again, and they meet in the store that they met in before."""
    restarts = environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    return environ.get("TORCHELASTIC_USE_AGENT_STORE", "") == "True" and restarts.strip() not in ("", "0")


def _launched(environ: Mapping[str, str], given: Iterable[Launcher], what: str, least: int) -> tuple[str, int | None]:
    """Return what a launcher says, and the variable that it says it with; some set -1 for what does not apply."""
    for launcher in given:
        variable = getattr(launcher, what)
        text = environ.get(variable, "").strip() if variable else ""
        if text and text != "-1":
            return variable, _number(environ, variable, least, least)
    return getattr(TORCHRUN, what), None


def _number(environ: Mapping[str, str], name: str, default: int, least: int) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        raise ConfigurationError(f"{name} must be a whole number, got {text!r}") from None
    if value < least:
        raise ConfigurationError(f"{name} must be at least {least}, got {value}")
    return value
