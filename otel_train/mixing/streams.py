"""The protocol of a stream, and the stream of a file's bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from otel_train.arguments import MAX_SHOWN, finite_number, whole_number
from otel_train.exceptions import ConfigurationError


@runtime_checkable
class Stream(Protocol):
    """A sequence of rows that must be read in order, because state is carried from each to the next.

    Examples:
        >>> from otel_train.mixing import Stream
        >>> class Numbers:
        ...     def __init__(self, id, modality, length):
        ...         self.id, self.modality, self.length = id, modality, length
        ...     def __len__(self):
        ...         return self.length
        ...     def read(self, position):
        ...         return {"value": position}, 1              # a row, and its tokens
        >>> isinstance(Numbers("a", "code", 100), Stream)
        True
    """

    @property
    def id(self) -> str:
        """A name that no other stream has, the same in every run."""

    @property
    def modality(self) -> str:
        """The kind of data that the stream holds."""

    def __len__(self) -> int:
        """Return the number of rows, at least 1."""

    def read(self, position: int) -> tuple[Mapping[str, Any], int]:
        """Return row `position` (its values by name) and the number of tokens in it."""


@dataclass(frozen=True, slots=True)
class FileStream:
    """The bytes of a file in rows of `chunk` inputs and the byte after each, for next-byte prediction.

    Examples:
        >>> from pathlib import Path
        >>> from otel_train.mixing import FileStream
        >>> _ = Path("text").write_bytes(b"abcdefg")
        >>> stream = FileStream("text", "prose", "text", chunk=4)
        >>> len(stream)
        2
        >>> values, tokens = stream.read(0)
        >>> values["bytes"], tokens
        (tensor([ 97,  98,  99, 100, 101], dtype=torch.uint8), 4)

    Args:
        id: The stream's name.
        modality: The kind of data.
        path: The file.
        chunk: Inputs in a row, T.
        max_bytes: Most bytes that are read of the file; 0 for all.

    Raises:
        ConfigurationError: The file holds fewer than two bytes, or can't be read, or a number breaks its rule.
    """

    id: str
    modality: str
    path: str
    chunk: int
    max_bytes: int = 0
    _size: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        whole_number("chunk", self.chunk, least=1, remedy="give the inputs of a row")
        whole_number("max_bytes", self.max_bytes, least=0, remedy="0 reads a file to its end")
        try:
            size = Path(self.path).stat().st_size
        except OSError as error:
            raise ConfigurationError(f"stream {self.id!r}: {self.path} can't be read: {error.strerror}") from error
        object.__setattr__(self, "_size", min(size, self.max_bytes) if self.max_bytes else size)
        if self._size < 2:
            raise ConfigurationError(
                f"stream {self.id!r}: {self.path} holds {self._size} bytes, 2 are needed for a row"
            )

    def __len__(self) -> int:
        return (self._size - 2) // self.chunk + 1

    def read(self, position: int) -> tuple[dict[str, torch.Tensor], int]:
        """Return row `position` and its number of tokens.

        Returns:
            `{"bytes": tensor}`, uint8 [chunk + 1], zeros after the last byte; and the number of inputs that
            have a byte after them.
        """
        start = position * self.chunk
        with Path(self.path).open("rb") as file:
            file.seek(start)
            data = file.read(min(self.chunk + 1, self._size - start))
        if len(data) < 2:
            raise OSError(f"{self.path} was {self._size} bytes long and has become shorter")
        row = torch.zeros(self.chunk + 1, dtype=torch.uint8, device="cpu")
        row[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return {"bytes": row}, len(data) - 1


def read_row(stream: Stream, position: int, slot: int) -> tuple[dict[str, Any], int]:
    """Return a stream's row, with what a row has of its stream, and its number of tokens.

    Raises:
        ConfigurationError: The number of tokens is none. This and the stream's own errors get a note naming the stream.
    """
    try:
        values, tokens = stream.read(position)
        finite_number("tokens", tokens, remedy="let read() return a row and the number of its tokens")
    except Exception as error:
        error.add_note(f"while reading row {position} of stream {stream.id!r} in slot {slot}")
        raise
    row = {**values, "stream": stream.id, "modality": stream.modality, "slot": slot, "position": position}
    return row, tokens


def checked_streams(streams: Iterable[Stream]) -> dict[str, Stream]:
    """Return streams by their ids, in their order.

    Raises:
        ConfigurationError: There is none, two have one id, or one has no rows, or no name or modality that is a text.
    """
    try:
        given = list(streams)
    except TypeError as error:
        raise ConfigurationError(f"streams must be a list of streams, got {type(streams).__name__}") from error
    if not given:
        raise ConfigurationError("streams must name at least one, got none")
    by_id: dict[str, Stream] = {}
    for stream in given:
        try:
            id_, modality, length = stream.id, stream.modality, len(stream)
        except Exception as error:
            raise ConfigurationError(
                f"a stream must have id, modality and a number of rows, {stream!r:.{MAX_SHOWN}} has not: "
                f"{type(error).__name__}: {error!s:.{MAX_SHOWN}}"
            ) from error
        if not isinstance(id_, str) or not isinstance(modality, str):
            raise ConfigurationError(
                f"a stream's id and modality must be texts, got {id_!r:.{MAX_SHOWN}} and {modality!r:.{MAX_SHOWN}}"
            )
        if id_ in by_id:
            raise ConfigurationError(f"two streams have the id {id_!r}; ids must be distinct")
        if length < 1:
            raise ConfigurationError(f"stream {id_!r} has no rows; leave it out")
        by_id[id_] = stream
    return by_id
