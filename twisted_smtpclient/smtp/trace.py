"""
What a delivery did and where its time went: for people, never for decisions.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from .reply import Reply

#: Octets of a transcript as a reply has it: the handshake, and the commands and
#: replies of a mail with some 500 recipients, of 64 octets each with their frame.
MAX_TRANSCRIPT: Final = 65536

#: Octets around a line of it: ``["C",""],``.
_FRAME: Final = 9
#: Octets that stand as more than themselves: quotation marks as two, what is not
#: printable as ``\u0000`` at the most, others as ``\xNN`` where they are no UTF-8.
_LONGER: Final = 5
_AS_THEY_ARE: Final = bytes(octet for octet in range(32, 127) if octet not in b'"\\')

Side = Literal["C", "S"]

#: What stands at the end of a transcript that did not fit.
LEFT_OUT: Final = b"(the rest is left out)"


class Witness(Protocol):
    """Sees what is said for one mail, in its order."""

    def said(self, commands: bytes) -> None:
        """Commands are written, each with its CRLF."""

    def sent(self, octets: int) -> None:
        """Content is written."""

    def heard(self, reply: Reply) -> None:
        """The server answers."""


class Transcript:
    """
    What was said, line by line; content is given as its size.

    At most :data:`MAX_TRANSCRIPT` octets are kept, from the beginning.  Whoever
    writes it leaves out what is secret.
    """

    def __init__(self) -> None:
        #: each line behind its side, before an LF, which none has in it: objects
        #: for 6,000 lines would take up 20 times as much
        self._kept = bytearray()
        self._left = MAX_TRANSCRIPT - len(LEFT_OUT) - _FRAME - len("]")
        self._content = 0

    @property
    def lines(self) -> list[tuple[Side, str]]:
        """
        Who said what: ``C`` for the client, ``S`` for the server.

        Octets that are not UTF-8 appear as ``\\xNN``.
        """
        self._end_content()
        return [(_side(line), line[1:].decode("utf-8", "backslashreplace")) for line in self._raw()]

    def said(self, commands: bytes) -> None:
        """Add commands of the client, each with its CRLF."""
        self._end_content()
        for line in commands.split(b"\r\n")[:-1]:
            self._add("C", line)

    def sent(self, octets: int) -> None:
        """Add content of the client, which may come in parts."""
        self._content += octets

    def heard(self, reply: Reply) -> None:
        """Add a reply of the server."""
        self._end_content()
        for line in reply.lines:
            self._add("S", line)

    def extend(self, other: Transcript) -> None:
        """Add all that another one holds."""
        self._end_content()
        other._end_content()
        for line in other._raw():
            self._add(_side(line), line[1:])

    def _raw(self) -> list[bytes]:
        return bytes(self._kept).split(b"\n")[:-1]

    def _end_content(self) -> None:
        if self._content:
            octets, self._content = self._content, 0
            self._add("C", b"(%d octets)" % octets)

    def _add(self, side: Side, line: bytes) -> None:
        if self._left < 0:
            return
        longer = len(line.translate(None, _AS_THEY_ARE))
        self._left -= len(line) + _FRAME + _LONGER * longer
        self._kept += side.encode() + (line if self._left >= 0 else LEFT_OUT) + b"\n"


def _side(line: bytes) -> Side:
    return "C" if line[:1] == b"C" else "S"


class Trace:
    """
    Where the time of one delivery went, in seconds.

    Given to a delivery, it is filled in as that goes on, and holds what is
    known whatever the outcome.  Where a mail went to more than one connection,
    or in more than one transaction, these are sums, and the rest is of the
    last.

    :param transcript: whether to keep what is said.
    :ivar queued: waiting for a connection that takes the mail.
    :ivar connect: looking up the name and connecting, as far as the mail
        waited for it; so also ``tls`` and ``session``.
    :ivar tls: the TLS handshake.
    :ivar session: the greeting, EHLO, STARTTLS, AUTH.
    :ivar envelope: from the connection's choice to the last reply to RCPT.
    :ivar content: from there to the final reply.
    :ivar total: from the call to the outcome.
    :ivar flights: writes that were followed by waiting for the server, those
        of the mail itself; the handshake's are not among them.
    :ivar reused: whether the connection was there before the mail.
    :ivar pipelined: whether commands went in groups (PIPELINING).
    :ivar chunking: whether the content went by BDAT (CHUNKING).
    :ivar tls_version: such as ``TLSv1.3``; None in clear.
    :ivar transcript: the session's handshake, and the mail's own commands and
        replies; None where it was not asked for.
    """

    __slots__ = (
        "chunking", "connect", "content", "envelope", "flights", "pipelined",
        "queued", "reused", "session", "tls", "tls_version", "total", "transcript",
    )  # fmt: skip

    def __init__(self, *, transcript: bool = False) -> None:
        self.queued = self.connect = self.tls = self.session = 0.0
        self.envelope = self.content = self.total = 0.0
        self.flights = 0
        self.reused = self.pipelined = self.chunking = False
        self.tls_version: str | None = None
        self.transcript = Transcript() if transcript else None

    def __repr__(self) -> str:
        return f"<Trace {self.total:.3f} s, {self.flights} flights>"
