"""Find the reference job's streams: files of this Python, of the installed packages, and of the user."""

from __future__ import annotations

import glob
import hashlib
import sysconfig
from pathlib import Path

from otel_train.exceptions import ConfigurationError
from otel_train.mixing import FileStream
from otel_train.paths import expanded
from otel_train.trainer.config import DataConfig


def find_streams(config: DataConfig, base: Path) -> list[FileStream]:
    """Return a stream for each file that matches the patterns, the same on each rank of a node.

    Args:
        config: Patterns and limits.
        base: Folder in which relative patterns begin.

    Raises:
        ConfigurationError: No file of a modality is long enough.
    """
    paths = sysconfig.get_paths()
    roots = {"stdlib": paths["stdlib"], "site": paths["purelib"]}
    streams: list[FileStream] = []
    taken: set[str] = set()
    for modality, patterns in config.modalities.items():
        files: dict[str, str] = {}
        for pattern in patterns:
            files.update(_expand(pattern, roots, base, config.min_bytes))
        # In an order that does not go by the alphabet, so that the first ones are of many packages.
        names = sorted((name for name in files if files[name] not in taken), key=_scattered)[: config.max_streams]
        if not names:
            raise ConfigurationError(
                f"data.modalities.{modality} matches no file of at least {config.min_bytes} bytes; "
                "fix its patterns or lower data.min_bytes"
            )
        taken.update(files[name] for name in names)
        streams += [
            FileStream(f"{modality}:{name}", modality, files[name], config.chunk, config.max_bytes) for name in names
        ]
    return streams


def _expand(pattern: str, roots: dict[str, str], base: Path, min_bytes: int) -> dict[str, str]:
    """Return the files of a pattern: real path by a name without this machine's directories."""
    for key, root in roots.items():
        marker = "{" + key + "}"
        if pattern.startswith(marker):
            prefix, full = root, root + pattern[len(marker) :]
            break
    else:
        marker, prefix = "", f"{base}/"
        full = str(base / expanded(pattern))
    files: dict[str, str] = {}
    for name in glob.iglob(full, recursive=True):  # noqa: PTH207  # Path.glob takes no absolute pattern
        path = Path(name)
        if path.is_file() and path.stat().st_size >= min_bytes:
            files[marker + name.removeprefix(prefix)] = str(path.resolve())
    return files


def _scattered(name: str) -> bytes:
    return hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
