"""
A client that does one thing after another, to compare with.

It knows nothing of the project: where the client under test and this one get
different octets through the same server, the client under test is at fault.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

_PATIENCE = 60.0


def canonical(message: bytes) -> bytes:
    """Each line end (CRLF, LF, CR) as CRLF, made octet by octet."""
    octets = bytearray()
    previous = None
    for octet in message:
        if octet == 13 or (octet == 10 and previous != 13):
            octets += b"\r\n"
        elif octet != 10:
            octets.append(octet)
        previous = octet
    return bytes(octets)


def stuffed(content: bytes) -> bytes:
    """Canonical content for DATA, with the end of data (RFC 5321 section 4.5.2)."""
    lines = content.split(b"\r\n")
    if lines[-1] == b"":
        del lines[-1]
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


class Session:
    """A connection on which each command waits for its reply."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=_PATIENCE)
        self._lines = self._socket.makefile("rb")
        self.greeting = self.reply()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def reply(self) -> str:
        """The next reply, its lines joined by LF; empty if the server has closed."""
        lines = []
        while line := self._lines.readline():
            lines.append(line.decode("utf-8").rstrip("\r\n"))
            if line[3:4] != b"-":
                break
        return "\n".join(lines)

    def say(self, octets: bytes) -> str:
        """Send octets as they are; the reply to them."""
        self._socket.sendall(octets)
        return self.reply()


def deliver(
    host: str, port: int, sender: str, recipients: Sequence[str], content: bytes, *, chunking: bool
) -> str:
    """
    The final reply to canonical content sent by DATA or by BDAT.

    :raises AssertionError: where a reply before it is not a success.
    """
    with Session(host, port) as session:
        _expect("220", session.greeting)
        _expect("250", session.say(b"EHLO reference.tests.example\r\n"))
        _expect("250", session.say(f"MAIL FROM:<{sender}>\r\n".encode()))
        for recipient in recipients:
            _expect("250", session.say(f"RCPT TO:<{recipient}>\r\n".encode()))
        if chunking:
            final = session.say(b"BDAT %d LAST\r\n" % len(content) + content)
        else:
            _expect("354", session.say(b"DATA\r\n"))
            final = session.say(stuffed(content))
        session.say(b"QUIT\r\n")
        return final


def _expect(code: str, reply: str) -> None:
    assert reply.startswith(code), reply
