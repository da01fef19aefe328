"""What the sink keeps of what it got: sessions and mails."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

__all__ = ["Addressee", "Attempt", "Closed", "Login", "Mail", "Parameters", "Session"]

#: ESMTP keyword, in upper case, to its value as sent; None: it had none.
Parameters = dict[str, "str | None"]

#: hexchar of xtext (RFC 3461 4), and EmbeddedUnicodeChar of an address of type utf-8 (RFC 6533 3).
_HEXCHAR: Final = re.compile(r"\+([0-9A-F]{2})")
_EMBEDDED: Final = re.compile(r"\\x\{([0-9A-F]{2,6})\}")


def _unescaped(value: str, escape: re.Pattern[str]) -> str:
    return escape.sub(lambda match: chr(int(match[1], 16)), value)


class Closed(str, Enum):
    """How a session ended."""

    #: The client had said QUIT.
    QUIT = "QUIT"
    #: The client closed in order, without QUIT.
    CLIENT = "CLIENT"
    #: The connection broke (reset, failed handshake); see :attr:`Session.reason`.
    LOST = "LOST"
    #: The sink closed it: a fault, or :meth:`Sink.stop <twisted_smtpclient.testing.Sink.stop>`.
    SINK = "SINK"


class Addressee(NamedTuple):
    """One RCPT: what stood between ``<`` and ``>``, and the parameters behind it."""

    address: str
    parameters: Parameters

    @property
    def orcpt(self) -> str | None:
        """ORCPT as it was before it was escaped: ``"rfc822;a+b@example.org"``; None: there was none."""
        value = self.parameters.get("ORCPT")
        if value is None:
            return None
        return _unescaped(value, _EMBEDDED if value.lower().startswith("utf-8;") else _HEXCHAR)


class Login(NamedTuple):
    """Who is logged in, and by which mechanism: ``mail.login == ("me", "PLAIN")``."""

    user: str
    mechanism: str


@dataclass(slots=True, eq=False)
class Attempt:
    """
    One AUTH command, and the exchange behind it.

    :ivar mechanism: as sent.
    :ivar initial_response: decoded; None: AUTH bore none that could be read.
    :ivar responses: to the challenges, decoded; those that could be.
    :ivar cancelled: whether the client ended it with ``*``.
    :ivar reply: the one that ended it, such as ``"235 2.7.0 ..."``; empty if
        none did.
    """

    mechanism: str
    initial_response: bytes | None = field(default=None, repr=False)
    responses: list[bytes] = field(default_factory=list, repr=False)
    cancelled: bool = False
    reply: str = ""


@dataclass(slots=True, eq=False)
class Session:
    """
    One connection.

    ``flights`` are the bursts of the client between the sink's replies, which
    is how often the client waited for the sink.  A burst ends with a read
    after which all that came in is answered (no part of a command or content
    is left over), and all that comes in before the replies to it have gone
    out (they may be held back or slow) belongs to it.  A burst that had no
    reply but the one to QUIT does not count, since nobody waits for 221; nor
    does the greeting.  The TLS handshake is not seen here.  Octets handed to
    the sink one at a time make a burst of each command: it answers when it
    can.  So does, without a ``delay``, the rare read that ends just between
    two commands of a group over 64 KiB; give a ``delay`` where groups are
    that large and the count must be exact.

    :ivar number: of the connection; a sink's first is 1.
    :ivar commands: as received, in order, without CRLF; responses to the
        challenges of AUTH are not among them.
    :ivar violations: what the client did wrong, each as a sentence; empty for
        a client that keeps to the RFCs.
    :ivar helo: the last name given with EHLO, HELO or LHLO.
    :ivar tls: whether a TLS handshake was completed.
    :ivar login: who is logged in, None: nobody.
    :ivar attempts: to log in, in order.
    :ivar octets: received in all, inside of TLS.
    :ivar unfinished: octets of a content that had not ended when the
        connection did.
    :ivar unaddressed: contents that came though no recipient was accepted
        (where a fault said 354 all the same); a client sends a lone dot,
        which makes ``b""``.
    :ivar transcript: ``("C" | "S", line)`` in order, contents left out; the
        replies as decided, before delays and faults that hold them back.
        Empty unless the sink was made with ``keep_transcript``.
    :ivar closed: how it ended, None while it is open.
    :ivar reason: Twisted's words for the end.
    """

    number: int
    peer: str = ""
    commands: list[bytes] = field(default_factory=list)
    flights: int = 0
    violations: list[str] = field(default_factory=list)
    helo: str | None = None
    tls: bool = False
    octets: int = 0
    unfinished: int = 0
    unaddressed: list[bytes] = field(default_factory=list)
    mails: list[Mail] = field(default_factory=list)
    transcript: list[tuple[str, bytes]] = field(default_factory=list)
    closed: Closed | None = None
    reason: str = ""
    login: Login | None = None
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Mail:
    """
    One mail whose content came in whole, for at least one accepted recipient.

    :ivar sender: as it stood between ``<`` and ``>``; octets that are not
        UTF-8 as surrogates.
    :ivar recipients: those that were accepted, in order, duplicates kept.
    :ivar refused: those that were not, likewise.
    :ivar content: the octets that the client meant: dot-unstuffed; for DATA
        with the last CRLF before the dot.  Empty where the sink does not keep
        content, or it was over the limit.
    :ivar size: octets of that content, kept or not.
    :ivar via: ``"DATA"`` or ``"BDAT"``.
    :ivar chunks: sizes of the BDAT chunks.
    :ivar bare_line_ends: whether a CR or LF stood without the other.
    :ivar replies: the final replies: one; for LMTP one for each accepted
        recipient, in order.  What a fault said instead stands here as one
        text; empty if it said nothing.
    :ivar number: of the mail; a sink's first is 1.
    :ivar login: who was logged in when it was begun; None: nobody.
    """

    sender: str
    sender_parameters: Parameters
    recipients: list[Addressee]
    refused: list[Addressee]
    content: bytes
    size: int
    via: str
    chunks: list[int]
    bare_line_ends: bool
    session: Session
    replies: list[str]
    number: int
    login: Login | None

    @property
    def addresses(self) -> list[str]:
        """The accepted recipients' addresses alone."""
        return [address for address, _ in self.recipients]

    @property
    def envid(self) -> str | None:
        """ENVID as it was before it was made xtext (RFC 3461 4.4); None: there was none."""
        value = self.sender_parameters.get("ENVID")
        return None if value is None else _unescaped(value, _HEXCHAR)

    @property
    def reply(self) -> str:
        """The final reply (of several, the first); empty if none was given."""
        return self.replies[0] if self.replies else ""

    @property
    def accepted(self) -> bool:
        """Whether a final reply was positive: the sink is responsible for the mail now."""
        return any(reply.startswith("2") for reply in self.replies)
