"""Hooks of the documentation site: links into the checkout, and the reference of the commands from their own help.

A page links to a file of the checkout by its relative path, so that the link works in the tree as well. The site gets
a copy of each such file below `checkout/`, and the links lead there; a file that does not exist stays a broken link,
which the strict build refuses.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import click
from mkdocs.structure.files import File, Files

from otel_train.cli import main

ROOT = Path(__file__).parent.parent
_COPIES = "checkout/"
_LINK = re.compile(r'(\]\(|\bsrc="|\bhref=")([^)\s"#:]+)')
_COMMANDS = "<!-- commands -->"


def on_files(files: Files, *, config: Any) -> Files:
    """Add the files outside of `docs` that a page links to, and those that they link to in turn."""
    pending = list(files.documentation_pages())
    while pending:
        page = pending.pop()
        for path in _outside(page):
            copy = File.generated(config, _COPIES + path, abs_src_path=str(ROOT / path))
            if copy.src_uri not in files.src_uris:
                files.append(copy)
                pending += [copy] if copy.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead links to where their files are in the site, and fill in the commands."""
    if page.file.src_uri.startswith(_COPIES) or "../" in markdown:
        markdown = _LINK.sub(lambda link: link[1] + _in_site(page.file, link[2]), markdown)
    return markdown.replace(_COMMANDS, "\n".join(_reference(main, "otel-train", {})))


def _outside(page: File) -> Iterator[str]:
    for _, link in _LINK.findall(page.content_string):
        path = _in_checkout(page, link)
        if not path.startswith(("docs/", "../")) and (ROOT / path).is_file():
            yield path


def _in_checkout(page: File, link: str) -> str:
    source = page.src_uri.removeprefix(_COPIES) if page.src_uri.startswith(_COPIES) else f"docs/{page.src_uri}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _in_site(page: File, link: str) -> str:
    path = _in_checkout(page, link)
    if not (ROOT / path).is_file():
        return link
    target = path.removeprefix("docs/") if path.startswith("docs/") else _COPIES + path
    return os.path.relpath(target, PurePosixPath(page.src_uri).parent)


def _reference(command: click.Command, name: str, settings: dict[str, Any]) -> Iterator[str]:
    """Yield the help of a group's commands, each under its name."""
    assert isinstance(command, click.Group), "the command is a group"
    with click.Context(command, info_name=name, **settings) as group:
        for child in command.list_commands(group):
            what = command.get_command(group, child)
            assert what is not None, "it is listed"
            with click.Context(what, group, info_name=child, terminal_width=100, max_content_width=100) as context:
                yield from (f"## {name} {child}", "", "```text", what.get_help(context), "```", "")
