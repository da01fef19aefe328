"""
Content as it comes in: DATA's, which ends with CRLF.CRLF, and BDAT's chunks.

Both are read in time linear in their length, however the octets are split,
and keep nothing beyond the limit.
"""

from __future__ import annotations

from typing import Final

#: Octets of DATA that are looked through for their end before whole lines of
#: them are put by; one read of Twisted's is 65536 at most.
_FOLD: Final = 65536


class Content:
    """
    One mail's content, however it comes.

    :param limit: octets above which nothing is kept and :attr:`too_big` is
        true; None: no limit.
    """

    def __init__(self, limit: int | None, keep: bool) -> None:
        self.size = 0
        self.eight_bit = False
        self.too_big = False
        self._limit = limit
        self._keep = keep
        self._pieces: list[bytes] = []
        self._crs = self._lfs = self._crlfs = 0
        self._ends_in_cr = False

    def add(self, piece: bytes) -> None:
        if not piece:
            return
        self.size += len(piece)
        self._crs += piece.count(b"\r")
        self._lfs += piece.count(b"\n")
        # A CRLF may be split between two pieces.
        self._crlfs += piece.count(b"\r\n") + (self._ends_in_cr and piece[0] == 10)
        self._ends_in_cr = piece[-1] == 13
        if not self.eight_bit and not piece.isascii():
            self.eight_bit = True
        if self._limit is not None and self.size > self._limit:
            self.too_big = True
            self._pieces.clear()
        elif self._keep:
            self._pieces.append(piece)

    @property
    def bare_line_ends(self) -> bool:
        return not self._crs == self._lfs == self._crlfs

    def octets(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


class DotReader:
    """
    DATA's content, up to the exact CRLF.CRLF (RFC 5321 4.1.1.4); a bare LF
    ends nothing.

    :ivar taken: octets that have come in, as on the wire.
    :ivar unstuffed: whether a line began with one dot and went on with
        something else: the client has not stuffed it.
    """

    def __init__(self, content: Content) -> None:
        self.taken = 0
        self.unstuffed = False
        self._content = content
        # The CRLF of the DATA command: a dot right behind it is one at the start of a line.
        self._window = bytearray(b"\r\n")
        self._first = 2

    @property
    def begun(self) -> bool:
        """Whether the client owes the rest."""
        return self.taken > 0

    def feed(self, data: bytes, at: int) -> int:
        """
        Take octets from there on.

        :returns: where the first octet behind the end of data stands; -1 if
            the end has not come.
        """
        window = self._window
        start = len(window)
        window += memoryview(data)[at:]
        # The end may have begun in the four octets before.
        end = window.find(b"\r\n.\r\n", max(0, start - 4))
        if end < 0:
            self.taken += len(data) - at
            if len(window) > _FOLD:
                self._fold()
            return -1
        self._put_by(bytes(window[: end + 2]))
        used = end + 5 - start
        self.taken += used
        return at + used

    def _fold(self) -> None:
        # Whole lines: nothing that is looked for reaches over the last CRLF.
        # Without one, the last four octets may be the beginning of the end.
        window = self._window
        cut = window.rfind(b"\r\n")
        if cut <= 0:
            cut = len(window) - 4
        self._put_by(bytes(window[:cut]))
        del window[:cut]

    def _put_by(self, octets: bytes) -> None:
        if b"\r\n." in octets:
            self.unstuffed |= octets.count(b"\r\n.") != octets.count(b"\r\n..")
            octets = octets.replace(b"\r\n.", b"\r\n")
        self._content.add(octets[self._first :])
        self._first = 0


class ChunkReader:
    """One BDAT chunk of so many octets (RFC 3030 2)."""

    #: The command has announced it.
    begun = True

    def __init__(self, content: Content | None, size: int) -> None:
        self.taken = 0
        self._content = content
        self._left = size

    def feed(self, data: bytes, at: int) -> int:
        """As :meth:`DotReader.feed`."""
        piece = data[at : at + self._left]
        self._left -= len(piece)
        self.taken += len(piece)
        if self._content is not None:
            self._content.add(piece)
        return -1 if self._left else at + len(piece)
