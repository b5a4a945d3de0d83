"""Paths that a user gives to a command: relative or not, with `~`, and checked before any work is done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from otel_train.paths import expanded


class UserPath(click.Path):
    """A path whose `~` stands for the user's home, also where no shell has replaced it (`--out=~/x`)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path as a `Path`."""
        return super().convert(expanded(value), param, ctx)


class OutputFile(UserPath):
    """A file that a command will write; `-` is standard output where `allow_dash` is given.

    Minutes of work must not end with an error that could have been seen before.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(dir_okay=False, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path as a `Path`; fail where no file can be written."""
        path = super().convert(value, param, ctx)
        if str(path) == "-" and self.allow_dash:
            return path
        if not path.parent.is_dir():
            self.fail(f"{path} can't be written: {path.parent} is not a directory; make it first", param, ctx)
        target = path if path.exists() else path.parent
        if not os.access(target, os.W_OK):
            self.fail(f"{path} can't be written: {target} is read-only for you; give another file", param, ctx)
        return path


class OutputFolder(UserPath):
    """A folder that a command will write into, and make where it is missing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(file_okay=False, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path as a `Path`; fail where nothing can be written into it."""
        path = super().convert(value, param, ctx)
        nearest = next((parent for parent in (path, *path.absolute().parents) if parent.exists()), path)
        if not nearest.is_dir():
            self.fail(f"{path} can't be made: {nearest} is a file; give another folder", param, ctx)
        if not os.access(nearest, os.W_OK):
            self.fail(f"{path} can't be written: {nearest} is read-only for you; give another folder", param, ctx)
        return path
