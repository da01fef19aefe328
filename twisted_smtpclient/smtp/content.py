"""
The content of a mail, in the forms in which it crosses the wire.

Every line end (CRLF, a bare LF, a bare CR) becomes CRLF; the rest is sent
octet for octet.  Where nothing changes nothing is copied, and a large content
is made block by block, so that memory stays at the one copy that the caller
holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import IncrementalNewlineDecoder
from typing import Final

from ..errors import InvalidRequest

#: A block of a large content.  Twice the 64 KiB at which a Twisted transport
#: asks its producer to pause, and what its TCP sends at most with one call.
BLOCK: Final = 131072

#: Up to here a content goes with its envelope, in one piece (and is kept in
#: its wire form); above, it is made block by block behind the replies.
SMALL: Final = 262144

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_CRLF_DOT: Final = b"\r\n."


def _has_no_line_end_but_crlf(message: bytes) -> bool:
    """
    Whether each CR stands before an LF and each LF behind a CR.

    That is what universal newlines of the standard library find out in one
    look at the octets, at a third of the cost of counting all three.  They
    take text: a copy, so this is for small messages.
    """
    line_ends = IncrementalNewlineDecoder(None, translate=False)
    line_ends.decode(str(message, "latin-1"), final=True)
    return line_ends.newlines in (None, "\r\n")


class Content:
    """
    A message as octets, held once however many deliveries share it.

    :param message: the message; it is not copied.
    :raises InvalidRequest: naming ``message``, where it is not bytes: text has
        no octets yet, and a bytearray may change while it is sent.
    :ivar small: whether it is sent in one piece.
    :ivar size: octets once each line end is CRLF: what BDAT announces, and
        SIZE (RFC 1870 section 3).
    """

    __slots__ = ("_bdat", "_canonical", "_data", "message", "size", "small")

    def __init__(self, message: bytes) -> None:
        if not isinstance(message, bytes):
            raise InvalidRequest("expected bytes", "message")
        self.message = message
        self.small = len(message) <= SMALL
        if self.small and _has_no_line_end_but_crlf(message):
            self.size = len(message)
            self._canonical = True
        else:
            pairs = message.count(b"\r\n")
            feeds = message.count(b"\n")
            returns = message.count(b"\r")
            # Each bare LF or CR gains an octet.
            self.size = len(message) + feeds + returns - 2 * pairs
            self._canonical = pairs == feeds == returns
        self._bdat: bytes | None = message if self._canonical else None
        self._data: bytes | None = None

    def __repr__(self) -> str:
        return f"<Content of {self.size} octets>"

    @property
    def eight_bit(self) -> bool:
        """Whether an octet is over 127 (RFC 6152)."""
        return not self.message.isascii()

    def for_bdat(self) -> bytes:
        """The whole content in CRLF form (RFC 3030); kept, so for small ones."""
        if self._bdat is None:
            self._bdat = _LINE_END.sub(b"\r\n", self.message)
        return self._bdat

    def for_data(self) -> bytes:
        """
        The whole content dot-stuffed (RFC 5321 section 4.5.2), with the end
        of data behind it; kept, so for small ones.
        """
        if self._data is None:
            stuffed = self.for_bdat().replace(_CRLF_DOT, b"\r\n..")
            if stuffed.startswith(b"."):
                stuffed = b"." + stuffed
            ended = not stuffed or stuffed.endswith(b"\r\n")
            self._data = stuffed + (b".\r\n" if ended else b"\r\n.\r\n")
        return self._data

    def bdat_blocks(self) -> Iterator[bytes]:
        """The content in CRLF form, in blocks of about :data:`BLOCK` octets."""
        view = memoryview(self.message)
        if self._canonical:
            for start in range(0, len(view), BLOCK):
                yield bytes(view[start : start + BLOCK])
            return
        for block in self._whole_line_ends(view):
            yield _LINE_END.sub(b"\r\n", block)

    def _whole_line_ends(self, view: memoryview) -> Iterator[bytes]:
        """Blocks of the message, none of which parts a CR from its LF."""
        start = 0
        while start < len(view):
            end = min(start + BLOCK, len(view))
            if end < len(view) and view[end - 1] == 13 and view[end] == 10:
                end += 1
            yield bytes(view[start:end])
            start = end

    def data_blocks(self) -> Iterator[bytes]:
        """
        The content dot-stuffed, in blocks, the end of data in the last one.

        What stands before a block decides whether a dot at its start is
        doubled: a client that forgets it lets the content end itself.
        """
        before = b"\r\n"
        for block in self.bdat_blocks():
            joined = before + block
            before_length = len(before)
            stuffed = joined.replace(_CRLF_DOT, b"\r\n..") if _CRLF_DOT in joined else joined
            before = joined[-2:]
            yield stuffed[before_length:]
        yield b".\r\n" if before == b"\r\n" else b"\r\n.\r\n"
