"""
Text of others on a terminal.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with nothing in it that a terminal would obey."""
    return "\n".join(
        "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in line)
        for line in text.replace("\r\n", "\n").split("\n")
    )
