"""HTML that can't be injected into: text and attributes are escaped unless this module made them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

from otel_train.catalogue import MAX_TEXT

_WITHOUT_END = frozenset({"meta", "link", "br", "path", "rect", "wbr"})


class Html(str):
    """Markup made by this module."""

    __slots__ = ()


Child: TypeAlias = "Html | str | float | Iterable[Child] | None"


def text(value: object) -> Html:
    """Escape a value, with controls and marks of direction made visible: they could hide or reverse text."""
    shown = "".join(
        character if character.isprintable() or character in "\n\t" else _visible(character) for character in str(value)
    )
    return Html(html.escape(shown))


def _visible(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def tag(name: str, *children: Child, **attributes: object) -> Html:
    """Return an element; a `_` in an attribute's name becomes `-`, one at its end is dropped.

    Args:
        name: The element's name.
        children: Text, which is escaped, markup, or iterables of them; None is left out.
        attributes: Values, which are escaped; None and False leave the attribute out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text("" if value is True else value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inner = join(*children)
    return Html(f"<{name}{given}/>" if name in _WITHOUT_END else f"<{name}{given}>{inner}</{name}>")


def join(*children: Child) -> Html:
    """Return the children, one after another."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str | int | float):
            parts.append(text(child))
        else:
            parts.append(join(*child))
    return Html("".join(parts))


def outside(name: object) -> Html:
    """Return a name that somebody else gave, isolated from the text's direction and of bounded length."""
    whole = str(name)
    short = whole if len(whole) <= MAX_TEXT else whole[:MAX_TEXT] + "…"
    return tag("bdi", _breakable(short), class_="name")


def _breakable(name: str) -> Iterable[Child]:
    """Allow a line break after each part of a name."""
    for part in re.split(r"(?<=[/_.])(?=\w)", name):
        yield part
        yield tag("wbr")
