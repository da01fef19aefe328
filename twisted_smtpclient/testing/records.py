"""What the sink keeps of what it got: sessions and mails."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

__all__ = ["Addressee", "Closed", "Mail", "Parameters", "Session"]

#: ESMTP keyword, in upper case, to its value as sent; None: it had none.
Parameters = dict[str, "str | None"]


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
    :ivar commands: as received, in order, without CRLF.
    :ivar violations: what the client did wrong, each as a sentence; empty for
        a client that keeps to the RFCs.
    :ivar helo: the last name given with EHLO, HELO or LHLO.
    :ivar tls: whether a TLS handshake was completed.
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

    @property
    def addresses(self) -> list[str]:
        """The accepted recipients' addresses alone."""
        return [address for address, _ in self.recipients]

    @property
    def reply(self) -> str:
        """The final reply (of several, the first); empty if none was given."""
        return self.replies[0] if self.replies else ""

    @property
    def accepted(self) -> bool:
        """Whether a final reply was positive: the sink is responsible for the mail now."""
        return any(reply.startswith("2") for reply in self.replies)
