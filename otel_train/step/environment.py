"""Read the environment: the one place in a rank's process that does."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from otel_train.endpoint import Endpoint
from otel_train.exceptions import ConfigurationError

_TRUE = {"1", "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the environment says about this process and its telemetry."""

    rank: int = 0
    """RANK, as torchrun sets it."""
    local_rank: int = 0
    """LOCAL_RANK, as torchrun sets it."""
    world_size: int = 1
    """WORLD_SIZE, as torchrun sets it."""
    local_world_size: int = 1
    """LOCAL_WORLD_SIZE, as torchrun sets it."""
    disabled: bool = False
    """OTEL_SDK_DISABLED=true: no file, no process, no cost."""
    service_name: str = "otel_train"
    """OTEL_SERVICE_NAME."""
    run_id: str = ""
    """OTEL_TRAIN_RUN_ID."""
    rendezvous_id: str = ""
    """torchrun's rendezvous id, empty where none was set."""
    ring_dir: str = ""
    """OTEL_TRAIN_RING_DIR; empty for a directory of the run's own in memory."""
    ring_records: int = 4096
    """OTEL_TRAIN_RING_RECORDS: how many records a ring holds."""
    external_sidecar: bool = False
    """OTEL_TRAIN_SIDECAR=external: the platform starts the sidecar."""
    host: str = ""
    """The host's name."""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Environment:
        """Read the environment.

        Raises:
            ConfigurationError: A variable does not hold what it must; the message names it.
        """
        sidecar = environ.get("OTEL_TRAIN_SIDECAR", "")
        if sidecar not in ("", "embedded", "external"):
            raise ConfigurationError(f"OTEL_TRAIN_SIDECAR must be embedded or external, got {sidecar!r}")
        Endpoint.read(environ)  # the sidecar's: in its log nobody would see that a variable is wrong
        rendezvous = environ.get("TORCHELASTIC_RUN_ID", "")
        return cls(
            rank=_number(environ, "RANK", 0, 0),
            local_rank=_number(environ, "LOCAL_RANK", 0, 0),
            world_size=_number(environ, "WORLD_SIZE", 1, 1),
            local_world_size=_number(environ, "LOCAL_WORLD_SIZE", 1, 1),
            disabled=environ.get("OTEL_SDK_DISABLED", "").strip().lower() in _TRUE,
            service_name=environ.get("OTEL_SERVICE_NAME", "") or "otel_train",
            run_id=environ.get("OTEL_TRAIN_RUN_ID", ""),
            rendezvous_id="" if rendezvous == "none" else rendezvous,
            ring_dir=environ.get("OTEL_TRAIN_RING_DIR", ""),
            ring_records=_number(environ, "OTEL_TRAIN_RING_RECORDS", 4096, 2),
            external_sidecar=sidecar == "external",
            host=socket.gethostname(),
        )

    def ring_directory(self, run_id: str) -> Path:
        """Return the directory for the rings of this node's ranks."""
        if self.ring_dir:
            return Path(self.ring_dir)
        memory = Path("/dev/shm")  # noqa: S108  # the directories in it are 0700 and checked for their owner
        base = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
        name = "".join(character if character.isalnum() or character in "-_" else "_" for character in run_id)
        return base / f"otel_train-{os.getuid()}" / name[:64]


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
