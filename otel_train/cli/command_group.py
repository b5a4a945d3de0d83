"""The base of all commands: examples in their help, and errors of one line that say what to do.

Exit codes: 0; 1 when something went wrong; 2 when the command was called wrongly; 130 after Ctrl-C.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from otel_train.exceptions import ConfigurationError, OtelTrainError
from otel_train.extras import extra_of, install_command
from otel_train.output import replace_unprintable
from otel_train.printable import printable
from otel_train.variables import warning_of_unknown

NAME = "otel-train"


class Command(click.Command):
    """A command whose help ends with examples.

    Args:
        examples: Command lines, printed as they are.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples after the options."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.examples))


class Commands(Command, click.Group):
    """A group whose commands end with one line and an exit code when something is wrong."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run the command line and exit."""
        replace_unprintable()
        try:
            code = super().main(args, prog_name or NAME, **{**extra, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            code = 2
        except click.UsageError as error:
            code = _fail(_sentence(error), 2)
        except click.ClickException as error:
            code = _fail(error.format_message(), 1)
        except click.Abort:
            code = _fail("stopped", 130)
        except OtelTrainError as error:
            code = _fail(str(error), 2 if isinstance(error, ConfigurationError) else 1)
        except ModuleNotFoundError as error:
            needed = extra_of(error.name or "")
            if needed is None:
                raise
            code = _fail(f"{error.name} is not installed: {install_command(needed)}", 2)
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
            code = _fail(f"{reason}; see that the path is right, and that there is room and a right to use it", 1)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a variable that nothing reads is told of before."""
        if unknown := warning_of_unknown():
            click.echo(f"{NAME}: {printable(unknown)}", err=True)
        return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command, or fail with the name of the nearest one."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            nearest = difflib.get_close_matches(name, self.list_commands(ctx), 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(self.list_commands(ctx))}"
            raise click.UsageError(f"{name!r:.80} is not a command; {hint}", ctx)
        return super().resolve_command(ctx, args)


def near(path: Path) -> Path:
    """Return a path relative to the working directory, where it is below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _sentence(error: click.UsageError) -> str:
    """Return the message about a wrong call: the command, the error, and the help to read."""
    path = error.ctx.command_path if error.ctx is not None else NAME
    where = path.removeprefix(NAME).strip()
    message = error.format_message().rstrip(".")
    return f"{f'{where}: ' if where else ''}{message}; see `{path} --help`"


def _fail(message: str, code: int) -> int:
    """Print an error on one line, and return the exit code."""
    click.echo(f"{NAME}: {printable(' '.join(message.split()))}", err=True)
    return code
