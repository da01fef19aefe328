"""
Replies of a server: octets in, :class:`Reply` values out, everything bounded.

The parser is strict.  A client that has many commands outstanding gives each
reply to the command that is next in line; to skip, guess or mend one reply is
to give all that follow to the wrong commands, and mail is then reported as
delivered that was refused.  So what does not fit RFC 5321 section 4.2 ends
the connection.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from ..errors import ProtocolError
from .given import mypyc_attr
from .line_ends import bare_line_ends

#: RFC 5321 4.5.3.1.5 allows 512 octets; real servers write more (queue ids,
#: URLs).  Eight times the RFC's figure.
MAX_LINE: Final = 4096

#: RFC 4954 section 4 allows 12288 octets of base64 for a challenge, behind "334 ".
MAX_CHALLENGE: Final = 12292

#: An EHLO reply has some 20 lines, a policy text some 10.
MAX_LINES: Final = 256

#: One reply as a whole: 256 lines of 256 octets.
MAX_REPLY: Final = 65536

#: Reply-code = %x32-35 %x30-35 %x30-39 and the SP behind it (RFC 5321 4.2):
#: the code and the separator are checked by one look-up.
_FINAL: Final = {
    b"%d%d%d " % (a, b, c): a * 100 + b * 10 + c for a in range(2, 6) for b in range(6) for c in range(10)
}
_CODES: Final = {key[:3]: code for key, code in _FINAL.items()}

#: Replies that were read before, by their one line.  A server answers most
#: commands in the same few words, so most replies need not be made, nor
#: checked, again.  Lines that may bear a queue id are too many to keep.
_known_replies: Final[dict[bytes, Reply]] = {}
#: "250 2.1.5 Ok" has 12 octets, a queue id alone 10 and more.
_WITHOUT_ID: Final = 20
#: "354 End data with <CR><LF>.<CR><LF>" has 35, and no id.
_MAX_KNOWN_354: Final = 80
#: Some 300 octets each, so 76 KiB.
_MAX_KNOWN: Final = 256

#: What is kept of a reply at the least, however many recipients have one of their
#: own or are all told the same one.  All together have as much as a single one may
#: have; where they are more than 64, twice RFC 5321's line each, which is 100 MiB
#: for 100,000, and not 6 GiB.
MIN_KEPT: Final = 1024
#: What an object for a line takes up beside its octets.
_OBJECT: Final = 32

_ENHANCED: Final = re.compile(rb"([245])\.(\d{1,3})\.(\d{1,3})(?![^ \t])")


class EnhancedStatusCode(NamedTuple):
    """
    A status code of RFC 3463, such as ``5.1.1``.
    """

    klass: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"


#: The ones of three digits, with the space behind them, which is what servers
#: say; the rest are looked for by their pattern.
_COMMON_ENHANCED: Final = {
    b"%d.%d.%d " % (klass, subject, detail): EnhancedStatusCode(klass, subject, detail)
    for klass in (2, 4, 5)
    for subject in range(10)
    for detail in range(10)
}


#: The same as text, without that space.
_COMMON_TEXTS: Final = {octets: octets[:5].decode("ascii") for octets in _COMMON_ENHANCED}


@lru_cache(maxsize=256)
def _enhanced(text: bytes) -> EnhancedStatusCode:
    """Servers say few of them, and one of those for each recipient."""
    return EnhancedStatusCode(*map(int, text.split(b".")))


#: Told for each recipient, of the few that there are.
_text_of = lru_cache(maxsize=256)(str)


@mypyc_attr(acyclic=True)
class Reply:
    """
    One whole reply, of one line or many.

    :ivar code: the reply code, the same in every line.
    :ivar lines: the lines as they were sent, each with its code and without
        its CRLF.
    """

    __slots__ = ("code", "lines")

    def __init__(self, code: int, lines: tuple[bytes, ...]) -> None:
        self.code = code
        self.lines = lines

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reply):
            return NotImplemented
        return self.code == other.code and self.lines == other.lines

    def __hash__(self) -> int:
        return hash((self.code, self.lines))

    def __reduce__(self) -> tuple[object, ...]:
        # For copies and pickles, of which a compiled class knows nothing.
        return Reply, (self.code, self.lines)

    def __repr__(self) -> str:
        return f"<Reply {self.text!r}>"

    @property
    def text(self) -> str:
        """
        The lines joined by LF, each with its code as sent.

        Octets that are not UTF-8 appear as ``\\xNN``.
        """
        if len(self.lines) == 1:
            return self.lines[0].decode("utf-8", "backslashreplace")
        return b"\n".join(self.lines).decode("utf-8", "backslashreplace")

    @property
    def octets(self) -> int:
        """What its lines take up."""
        return sum(map(len, self.lines)) + _OBJECT * len(self.lines)

    def among(self, recipients: int) -> Reply:
        """
        As much of it as is kept where a mail has so many recipients: it is one
        of as many, or is told to each.

        :returns: this reply, or how it begins, and a line that says so.
        """
        if recipients == 1:
            return self
        left = max(MIN_KEPT, MAX_REPLY // recipients)
        if self.octets <= left:
            return self
        kept = [self.lines[0][:left]]
        left -= len(kept[0]) + _OBJECT
        for line in self.lines[1:]:
            left -= len(line) + _OBJECT
            if left < 0:
                break
            kept.append(line)
        return Reply(self.code, (*kept, b"%d (the rest is left out)" % self.code))

    @property
    def enhanced(self) -> EnhancedStatusCode | None:
        """
        The code at the start of the text (RFC 2034 section 4).

        None where there is none, or where its class contradicts the reply
        code: such a code is worth nothing.
        """
        line = self.lines[0]
        enhanced = _COMMON_ENHANCED.get(line[4:10])
        if enhanced is None:
            match = _ENHANCED.match(line, 4)
            if match is None:
                return None
            enhanced = _enhanced(match[0])
        return enhanced if enhanced.klass == self.code // 100 else None

    @property
    def enhanced_text(self) -> str | None:
        """The same as text, such as ``5.1.1``."""
        line = self.lines[0]
        text = _COMMON_TEXTS.get(line[4:10])
        if text is not None:
            # The class is the first digit of the reply code.
            return text if line[:1] == line[4:5] else None
        enhanced = self.enhanced
        return None if enhanced is None else _text_of(enhanced)


class ReplyParser:
    """
    Turns the octets of a server into replies.

    However the octets are split into calls of :meth:`feed`, the replies and
    the error are the same.

    :ivar error: what was wrong with the octets, once something was; from then
        on nothing more is parsed.
    """

    def __init__(self) -> None:
        self.error: ProtocolError | None = None
        self._tail = b""
        self._lines: list[bytes] = []
        self._octets = 0

    @property
    def pending(self) -> bool:
        """Whether a reply has begun that is not complete."""
        return bool(self._tail or self._lines)

    def feed(self, data: bytes) -> list[Reply]:
        """
        Take in ``data``.

        :returns: the replies that are complete by now.  Look at
            :attr:`error` when they have been dealt with.
        """
        if self.error is not None:
            return []
        if self._tail:
            data = self._tail + data
        lines = data.split(b"\r\n")
        self._tail = tail = lines.pop()
        # Asked once, and not of each line.
        if not self._lines and not bare_line_ends(data):
            replies = self._read(lines)
        else:
            replies = self._read_uncommon(lines)
        if tail and not self._has_failed:
            self.error = _line_fault(tail, complete=False)
        if self._has_failed:
            self._tail, self._lines = b"", []
        return replies

    @property
    def _has_failed(self) -> bool:
        return self.error is not None

    def _read(self, lines: list[bytes]) -> list[Reply]:
        """The replies that ``lines`` are; there is no bare CR or LF in them."""
        replies: list[Reply] = []
        for line in lines:
            reply = _known_replies.get(line)
            if reply is None:
                reply = _one_line_reply(line)
                if reply is None:
                    return self._read_uncommon(lines)
            replies.append(reply)
        return replies

    def _read_uncommon(self, lines: list[bytes]) -> list[Reply]:
        """The same where one is of more than one line, or at fault."""
        replies: list[Reply] = []
        for line in lines:
            try:
                reply = self._take_uncommon(line)
            except ProtocolError as error:
                self.error = error
                break
            if reply is not None:
                replies.append(reply)
        return replies

    def _take_uncommon(self, line: bytes) -> Reply | None:
        """One whole line; the reply that it completes, if it does."""
        fault = _line_fault(line, complete=True)
        if fault is not None:
            raise fault
        code = _CODES.get(line[:3])
        if code is None or line[3:4] not in (b" ", b"-", b""):
            raise ProtocolError(f"not a reply: {_excerpt(line)}")
        if self._lines and self._lines[0][:3] != line[:3]:
            raise ProtocolError(
                f"codes differ within one reply: {_excerpt(self._lines[0])}, {_excerpt(line)}"
            )
        self._lines.append(line)
        self._octets += len(line) + 2
        if len(self._lines) > MAX_LINES or self._octets > MAX_REPLY:
            raise ProtocolError(f"a reply of more than {MAX_LINES} lines or {MAX_REPLY} octets")
        if line[3:4] == b"-":
            return None
        reply = Reply(code, tuple(self._lines))
        self._lines = []
        self._octets = 0
        return reply


def _one_line_reply(line: bytes) -> Reply | None:
    """A reply of one line, in which there is no CR or LF; None where it is of more, or at fault."""
    code = _FINAL.get(line[:4])
    if code is None or len(line) > MAX_LINE:
        return None
    reply = Reply(code, (line,))
    without_id = len(line) <= (_MAX_KNOWN_354 if code == 354 else _WITHOUT_ID)
    if without_id and len(_known_replies) < _MAX_KNOWN:
        _known_replies[line] = reply
    return reply


def _line_fault(line: bytes, *, complete: bool) -> ProtocolError | None:
    """
    What is wrong with a line as such, whether or not its end has come.

    Whichever fault comes first in the octets is the one that is told, so that
    the answer does not depend on how they were split.
    """
    # A code that has no place anywhere else: what is longer is of no use there.
    most = MAX_CHALLENGE if line[:4] == b"334 " else MAX_LINE
    allowed = most if complete or not line.endswith(b"\r") else most + 1
    feed = line.find(b"\n")
    if 0 <= feed <= most:
        return ProtocolError(f"a reply line with a bare LF: {_excerpt(line[:feed])}")
    if len(line) > allowed:
        return ProtocolError(f"a reply line of more than {most} octets")
    if complete and b"\r" in line:
        return ProtocolError(f"a reply line with a bare CR: {_excerpt(line)}")
    return None


def _excerpt(octets: bytes) -> str:
    """Octets of a server, fit for an error's text."""
    shown = octets[:80].decode("ascii", "backslashreplace")
    return repr(shown + "…" if len(octets) > 80 else shown)
