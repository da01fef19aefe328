"""
Where the lines of a message end, and which begin with a dot.

Each message is looked through, so this counts.  Where there is a compiler it is
``_line_ends.c``, which tells the same at a tenth of the cost.
"""

from __future__ import annotations

from contextlib import suppress
from io import IncrementalNewlineDecoder
from typing import TYPE_CHECKING, Final

#: Up to here text is made of octets, which takes a copy of them.
_SMALL: Final = 262144


def bare_line_ends(message: bytes) -> int:
    """How many CR have no LF behind them, and how many LF no CR before them."""
    if len(message) <= _SMALL:
        # What universal newlines of the standard library find out in one look at
        # the octets, at a third of the cost of counting all three.
        line_ends = IncrementalNewlineDecoder(None, translate=False)
        line_ends.decode(str(message, "latin-1"), final=True)
        if line_ends.newlines in (None, "\r\n"):
            return 0
    return message.count(b"\r") + message.count(b"\n") - 2 * message.count(b"\r\n")


#: The same whatever takes its place below.
_bare_line_ends: Final = bare_line_ends


def survey(message: bytes) -> tuple[int, bool]:
    """How many there are, and whether an octet is over 127."""
    return _bare_line_ends(message), not message.isascii()


def has_dotted_line(message: bytes) -> bool:
    """Whether a line begins with a dot; lines end with LF."""
    return message.startswith(b".") or b"\n." in message


#: For a test, which compares.
IN_PYTHON: Final = (bare_line_ends, survey, has_dotted_line)

if not TYPE_CHECKING:  # pragma: no branch  # so it is whenever it runs
    with suppress(ImportError):
        from ._line_ends import bare_line_ends, has_dotted_line, survey
