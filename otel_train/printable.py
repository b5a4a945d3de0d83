"""Show text that somebody else wrote on a terminal or in a list of runs."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text that moves no cursor, ends no line and turns no writing direction: a `?` for each such character."""
    return "".join(character if character.isprintable() else "?" for character in text)
