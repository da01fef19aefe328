"""
The content of a mail, in the forms in which it crosses the wire.

Every line end (CRLF, a bare LF, a bare CR) becomes CRLF; the rest is sent
octet for octet.  A binary content is sent octet for octet, line ends too.
Where nothing changes nothing is copied, and a large content is made block by
block, so that memory stays at the one copy that the caller holds.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final

from ..errors import InvalidRequest
from .given import Flag, Octets, TryOrDepend, mypyc_attr
from .line_ends import has_dotted_line, survey
from .policy import Mode

#: A block of a large content.  Twice the 64 KiB at which a Twisted transport
#: asks its producer to pause, and what its TCP sends at most with one call.
BLOCK: Final = 131072

#: Up to here a content goes with its envelope, in one piece (and is kept in
#: its wire form); above, it is made block by block behind the replies.
SMALL: Final = 262144

#: Members of an Enum are dear to look up.
_TRY: Final = Mode.TRY

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_CRLF_DOT: Final = b"\r\n."

#: The empty line behind the header section (RFC 5322 2.1), or before all else.
_HEADER_END: Final = re.compile(rb"(?:\A|\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)")


def _check_terms(binary: object, eightbitmime: object) -> None:
    if not isinstance(binary, bool):
        raise InvalidRequest("expected True or False", "binary")
    if eightbitmime not in (Mode.TRY, Mode.DEPEND):
        raise InvalidRequest("expected Mode.TRY or Mode.DEPEND", "eightbitmime")


@mypyc_attr(acyclic=True)
class Content:
    """
    A message as octets, held once however many deliveries share it.

    :param message: the message; it is not copied.
    :param binary: whether it goes octet for octet, line ends too, as
        BODY=BINARYMIME by BDAT (RFC 3030), or not at all.
    :param eightbitmime: where octets over 127 meet a server that does not
        offer 8BITMIME (RFC 6152): ``TRY`` sends them as they are, ``DEPEND``
        fails before MAIL.  A message without such octets needs nothing.
    :raises InvalidRequest: naming ``message``, where it is not bytes: text has
        no octets yet, and a bytearray may change while it is sent; naming
        ``binary`` or ``eightbitmime``.
    :ivar eight_bit: whether an octet is over 127 (RFC 6152).
    :ivar plain: whether it asks no extension of the server, as most do.
    :ivar small: whether it is sent in one piece.
    :ivar size: octets once each line end is CRLF (but not of a binary one):
        what BDAT announces, and SIZE (RFC 1870 section 3).
    """

    __slots__ = (
        "_bdat", "_canonical", "_data", "_utf8_header", "binary", "eight_bit", "eightbitmime",
        "message", "plain", "size", "small",
    )  # fmt: skip

    _utf8_header: bool

    def __init__(self, message: Octets, *, binary: Flag = False, eightbitmime: TryOrDepend = _TRY) -> None:
        if not isinstance(message, bytes):
            raise InvalidRequest("expected bytes", "message")
        if binary is not False or eightbitmime is not _TRY:
            _check_terms(binary, eightbitmime)
        self.message = message
        self.binary = binary
        self.eightbitmime = eightbitmime
        bare, self.eight_bit = survey(message)
        self.plain = not (binary or self.eight_bit)
        self.small = len(message) <= SMALL
        # Each bare LF or CR gains an octet.
        gained = 0 if binary else bare
        self.size = len(message) + gained
        self._canonical = not gained
        self._bdat: bytes | None = message if self._canonical else None
        self._data: bytes | None = None

    def __repr__(self) -> str:
        return f"<Content of {self.size} octets>"

    @property
    def has_utf8_header(self) -> bool:
        """
        Whether its header section has octets over 127 and is valid UTF-8
        (RFC 6532).  Found out when it is first asked for.
        """
        if not self.eight_bit:
            return False
        try:
            return self._utf8_header
        except AttributeError:
            self._utf8_header = self._find_utf8_header()
            return self._utf8_header

    def _find_utf8_header(self) -> bool:
        end = _HEADER_END.search(self.message)
        header = memoryview(self.message)[: len(self.message) if end is None else end.start()]
        # Block by block: as one string it might take four times its octets.
        decoder = codecs.getincrementaldecoder("utf-8")()
        ascii_only = True
        try:
            for start in range(0, len(header), BLOCK):
                block = bytes(header[start : start + BLOCK])
                ascii_only = ascii_only and block.isascii()
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
        return not ascii_only

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
            stuffed = self.for_bdat()
            if has_dotted_line(stuffed):
                stuffed = stuffed.replace(_CRLF_DOT, b"\r\n..")
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
