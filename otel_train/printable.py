"""Make foreign text safe for a terminal or a list of runs."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text with `?` for each character that moves the cursor, ends the line or turns the writing direction."""
    return "".join(character if character.isprintable() else "?" for character in text)
