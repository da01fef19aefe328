"""
RCPT of the addresses that most are (RFC 5321 section 4.1.1.3).

A mail may have thousands of recipients, so this counts.  Where there is a compiler
it is ``_forward_path.c``, which tells the same at a fifth of the cost.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from .grammar import MAX_PLAIN, PLAIN_MAILBOX

_is_plain: Final = PLAIN_MAILBOX.fullmatch


def plain_rcpt(address: str) -> bytes | None:
    """
    The whole RCPT of an address that fits :data:`.grammar.PLAIN_MAILBOX`, CRLF included.

    :returns: None where it does not, or has more than :data:`.grammar.MAX_PLAIN`
        characters.
    """
    if len(address) > MAX_PLAIN or _is_plain(address) is None:
        return None
    return f"RCPT TO:<{address}>\r\n".encode("ascii")


#: For a test, which compares.
IN_PYTHON: Final = plain_rcpt

if not TYPE_CHECKING:  # pragma: no branch  # so it is whenever it runs
    with suppress(ImportError):
        from ._forward_path import plain_rcpt
