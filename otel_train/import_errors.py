"""Have the import of a package that is not installed say which extra it comes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def naming_extra(what: str) -> Iterator[None]:
    """Have an import in the block that lacks a package of an extra say how to install it.

    Args:
        what: What is imported.

    Raises:
        ModuleNotFoundError: The package is not installed; the message has the command.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        from otel_train.extras import extra_of, install_command  # noqa: PLC0415  # only a failure needs it

        extra = extra_of(error.name or "")
        if extra is None:
            raise
        message = f"{what} needs {error.name}, which is not installed: {install_command(extra)}"
        raise ModuleNotFoundError(message, name=error.name) from error
