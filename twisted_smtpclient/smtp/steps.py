"""
The steps of a transaction: how far it was written, which reply is next, and
what is to be known of each command.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Stage(enum.IntEnum):
    """How far a transaction has been written."""

    QUEUED = 0
    #: RSET, MAIL and some RCPT
    ENVELOPE = 1
    #: all of the envelope; the content's command is next
    ADDRESSED = 2
    #: DATA; its content is next, if the server says 354
    DATA = 3
    #: some of the content
    CONTENT = 4
    #: all of the content, or a lone dot in its place
    WHOLE = 5
    #: no content, and none will come
    CUT = 6


class Awaited(enum.IntEnum):
    """Which reply of a transaction is next."""

    RSET = 0
    MAIL = 1
    RCPT = 2
    DATA = 3
    END_OF_DATA = 4
    LONE_DOT = 5
    BDAT = 6


class Command(NamedTuple):
    """
    What is to be known of a command whose reply is waited for.

    :ivar name: as the verdict names it.
    :ivar timeout: the field of :class:`~.policy.Timeouts` that bounds it.
    :ivar phrase: what did not happen, where it ran out.
    """

    name: str
    timeout: str
    phrase: str


COMMANDS: Final = {
    Awaited.RSET: Command("RSET", "other", "no reply to RSET"),
    Awaited.MAIL: Command("MAIL", "mail", "no reply to MAIL"),
    Awaited.RCPT: Command("RCPT", "rcpt", "no reply to RCPT"),
    Awaited.DATA: Command("DATA", "data_initiation", "no reply to DATA"),
    Awaited.END_OF_DATA: Command(".", "data_termination", "no reply to the end of data"),
    Awaited.LONE_DOT: Command(".", "data_termination", "no reply to the end of data"),
    Awaited.BDAT: Command("BDAT", "bdat_last", "no reply to BDAT"),
}
