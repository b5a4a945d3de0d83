"""Completion in a shell: the values of arguments, and the script that asks for them."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from otel_train.cli.command_group import NAME, Command


def complete_config(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return files, and the shipped configurations that begin with the given text."""
    from otel_train.trainer.config import shipped_configs  # noqa: PLC0415

    names = [CompletionItem(name) for name in shipped_configs() if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type="file"), *names]


def complete_metric(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the headline keys that begin with the given text."""
    from otel_train.catalogue import HEADLINE_KEYS  # noqa: PLC0415

    return [CompletionItem(key) for key in HEADLINE_KEYS if key.startswith(incomplete)]


@click.command(
    cls=Command,
    examples=(
        'eval "$(otel-train completion bash)"        # in ~/.bashrc',
        'eval "$(otel-train completion zsh)"         # in ~/.zshrc',
        "otel-train completion fish > ~/.config/fish/completions/otel-train.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands, options, directories and configurations in a shell."""
    completion_class = get_completion_class(shell)
    assert completion_class is not None, "click has these three"
    root = context.find_root().command
    click.echo(completion_class(root, {}, NAME, f"_{NAME.replace('-', '_').upper()}_COMPLETE").source())
