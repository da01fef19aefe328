"""
The strings of a line that is JSON: how many there are, and the longest apart.

Where there is a compiler it is ``_strings.c``, which tells the same at a
twentieth of the cost.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

__all__ = ["message_apart", "strings_in"]

#: The name of the longest string in a line, and what stands in front of it (RFC 8259
#: section 2).
_NAME: Final = b'"message"'
#: Octets that are copied, for to look at a copy costs less than at a view.
SHORT: Final = 65536
_to_its_value: Final = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*"').match


def strings_in(line: bytes | bytearray) -> int:
    """
    How many strings a line of JSON has, keys included.

    Of a line that is no JSON it is some number.
    """
    # To find the next mark is ten times as fast as to count those there are.
    # None is missed wherever this looks; behind the key of the message, its
    # colon, perhaps a space and one mark, there are none for most of the line.
    begun = line.find(b'"message"') + 12
    ended = line.find(b'"', begun)
    marks = line.count(b'"', 0, begun)
    if ended >= 0:
        marks += line.count(b'"', ended)
    # "b in line" first asks whether b is a number, which costs more than to look.
    if line.find(b"\\") >= 0:
        # Of backslashes in a row each second is escaped by the one before.
        if line.find(b"\\\\") >= 0:
            line = line.replace(b"\\\\", b"")
        marks -= line.count(b'\\"')
    return marks // 2


def message_apart(line: bytes | bytearray) -> tuple[bytes, bytes | memoryview, int] | None:
    """
    A line with an empty message, what stood in that one, and how many strings
    there are.

    A mark in a string is behind a backslash.  So where there is no backslash the
    name, put in marks, is a string of its own, or the line is no JSON; where it
    stands there once, no other string is taken for the message.  What stood in the
    message is yet to be looked at: it may be no string of JSON.

    :returns: the message as a view of the line, where it is long.  None where a
        backslash stands elsewhere than in the message, where the name does not
        stand there exactly once, or where no string follows it.
    """
    name = line.find(_NAME)
    value = None if name < 0 else _to_its_value(line, name + len(_NAME))
    if value is None:
        return None
    begun = value.end()
    ended = line.find(b'"', begun)
    if ended < 0:
        return None
    bare = bytes(line[:begun] + line[ended:])
    if bare.find(b"\\") >= 0 or bare.find(_NAME, name + 1) >= 0:
        return None
    message = memoryview(line)[begun:ended]
    return bare, bytes(message) if len(message) <= SHORT else message, bare.count(b'"') // 2


#: For a test, which compares.
IN_PYTHON: Final = strings_in, message_apart

if not TYPE_CHECKING:  # pragma: no branch  # so it is whenever it runs
    with suppress(ImportError):
        from ._strings import message_apart, strings_in
