"""
A stream of octets as lines, of a bounded length, at a cost linear in theirs.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Line", "LineBuffer"]

#: A line without its LF; None stands for one that was too long.
Line = bytes | bytearray | None


#: Octets kept of a line that is too long: its id stands in them, if first.
HEAD: Final = 1024


class LineBuffer:
    """
    Cuts octets at each LF.

    At most ``max_line`` octets and the chunk at hand are held.  Each octet is
    copied into a line once, or twice where its line came in many pieces (a
    ``bytearray`` grows in place, with room to spare): never again for each
    chunk that follows.

    :param max_line: octets of a line, without CR and LF.
    :ivar heads: of each line that was too long, how it began; one for each
        None that was returned, for whoever takes that to take out.
    """

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self.heads: deque[bytes] = deque()
        self._tail = bytearray()
        #: Whether the line at hand was too long, and its rest is worth nothing.
        self._discarding = False

    @property
    def pending(self) -> int:
        """How many octets are held of a line that is not complete."""
        return len(self._tail)

    def feed(self, data: bytes) -> list[Line]:
        """
        Take in ``data``.

        :returns: the lines that are complete by now, and None for each that
            is known by now to be too long; it is told once, and the rest of
            such a line is dropped.
        """
        lines: list[Line] = []
        # To look for the ends is three times as fast as to split at them.
        end = data.find(b"\n")
        if self._discarding:
            if end < 0:
                return lines
            self._discarding = False
        elif end < 0:
            return self._begun(data, lines)
        else:
            lines.append(self._ended(data[:end]))
        may_be_too_long = len(data) > self._max_line
        start = end + 1
        while (end := data.find(b"\n", start)) >= 0:
            line = data[start:end]
            lines.append(self._checked(line) if may_be_too_long else line)
            start = end + 1
        return self._begun(data[start:], lines)

    def give_up(self) -> bytes:
        """
        Drop the line that is not complete, and its rest when it comes.

        :returns: how it began.
        """
        head = bytes(self._tail[:HEAD])
        self._tail = bytearray()
        self._discarding = True
        return head

    def end(self) -> Line:
        """The stream is over: what is left is a line; ``b""`` where nothing is."""
        return self._ended(b"")

    def _begun(self, piece: bytes, lines: list[Line]) -> list[Line]:
        """More of a line whose end has not come."""
        self._tail += piece
        if self._checked(self._tail) is None:
            self._tail = bytearray()
            self._discarding = True
            lines.append(None)
        return lines

    def _ended(self, piece: bytes) -> Line:
        if not self._tail:
            return self._checked(piece)
        line, self._tail = self._tail, bytearray()
        # What is over the bound by more than a CR is not worth a copy.
        line += piece[: self._max_line + 2]
        return self._checked(line)

    def _checked(self, line: bytes | bytearray) -> Line:
        if len(line) - line.endswith(b"\r") <= self._max_line:
            return line
        self.heads.append(bytes(line[:HEAD]))
        return None
