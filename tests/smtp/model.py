"""
A small SMTP and LMTP server, written apart from the client, that knows what
it has accepted and objects to what no client may do.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tests.smtp.script import reply
from twisted_smtpclient.smtp.reply import Reply


class Said(NamedTuple):
    """
    A reply, and what it answers.

    :ivar mail: the number in the sender's address of the mail that it is for.
    """

    reply: Reply
    verb: str
    mail: int
    recipient: str | None = None


#: What the server says to a command: its verb, the mail's number, the
#: recipient's address where there is one.
Decide = Callable[[str, int, str | None], int]

_SENDER = re.compile(rb"MAIL FROM:<s(\d+)@x>")
_RECIPIENT = re.compile(rb"RCPT TO:<([^>]*)>")
_BDAT = re.compile(rb"BDAT (\d+) LAST")


def yes(verb: str, mail: int, recipient: str | None) -> int:
    """A server that takes everything."""
    return 354 if verb == "DATA" else 250


class Server:
    """
    Takes octets, keeps what it would say until somebody delivers it.

    What it refuses leaves its transaction open, as the strictest of servers
    have it: a MAIL then is a fault of the client.  Where it refuses RSET it
    takes nothing until the next one.

    :param decide: what is said where the sequence of commands is in order.
    :param goes_on: whether commands behind a 421 are read.
    :param lenient_data: whether DATA is answered 354 with nobody accepted.
    :param bdat_for_nobody: the code for BDAT over LMTP with nobody accepted,
        where the server says something to it.
    :ivar says: replies that were not delivered yet.
    :ivar accepted: the recipients of what it took, once for each time.
    :ivar whole: numbers of the mails whose contents came whole.
    """

    def __init__(
        self,
        decide: Decide = yes,
        *,
        lmtp: bool = False,
        goes_on: bool = False,
        lenient_data: bool = False,
        bdat_for_nobody: int | None = None,
    ) -> None:
        self.says: deque[Said] = deque()
        self.accepted: list[str] = []
        self.whole: set[int] = set()
        self.replies = 0
        self._decide = decide
        self._lmtp = lmtp
        self.goes_on = goes_on
        self._lenient_data = lenient_data
        self._bdat_for_nobody = bdat_for_nobody
        self._buffer = b""
        self._open = False
        self._rset_refused = False
        self._recipients: list[str] = []
        self._mail = 0
        self._begun = 0
        self._in_data = False
        self._after_data = False
        self._quit = False
        self.dead = False

    def feed(self, octets: bytes) -> None:
        """Take octets of the client."""
        if not octets:
            return
        assert not self._quit, f"octets behind QUIT: {octets[:80]!r}"
        if self._after_data:
            # DATA ends a group: nothing may follow before it is answered.
            assert not any(said.verb == "DATA" for said in self.says), "octets behind DATA"
            self._after_data = False
        self._buffer += octets
        while not self.dead and self._step():
            pass

    @property
    def in_content(self) -> bool:
        """Whether a content has begun to come, and all before it was answered."""
        begun = bool(self._buffer) and (self._in_data or self._buffer.startswith(b"BDAT"))
        return begun and not self.dead and not self.says

    def refuse_early(self) -> None:
        """Refuse a content before its end, and never mind the rest."""
        self._put(552, "." if self._in_data else "BDAT", self._mail)
        self.dead = True

    def _step(self) -> bool:
        if self._in_data:
            return self._take_data()
        line, ended, rest = self._buffer.partition(b"\r\n")
        if not ended:
            return False
        if (match := _BDAT.fullmatch(line)) is not None:
            size = int(match[1])
            if len(rest) < size:
                return False
            self._buffer = rest[size:]
            self._end_of_content("BDAT")
            return True
        self._buffer = rest
        self._command(line)
        return True

    def _command(self, line: bytes) -> None:
        verb = line[:4].decode()
        if verb == "RSET":
            self._rset_refused = self._say("RSET", self._begun + 1) >= 300
            self._reset()
        elif verb == "MAIL":
            self._take_mail(line)
        elif verb == "RCPT":
            self._take_recipient(line)
        elif verb == "DATA":
            self._take_data_command()
        else:
            assert line == b"QUIT", line
            assert not self._buffer, "octets behind QUIT"
            self._quit = True
            self._put(221, "QUIT", 0)

    def _take_mail(self, line: bytes) -> None:
        assert not self._open, "MAIL in an open transaction"
        match = _SENDER.match(line)
        assert match is not None, line
        self._mail = self._begun = int(match[1])
        if self._rset_refused:
            self._put(503, "MAIL", self._mail)
        elif self._say("MAIL", self._mail) < 300:
            self._open = True

    def _take_recipient(self, line: bytes) -> None:
        match = _RECIPIENT.match(line)
        assert match is not None, line
        address = match[1].decode()
        if not self._open:
            self._put(503, "RCPT", self._mail, address)
        elif self._say("RCPT", self._mail, address) < 300:
            self._recipients.append(address)

    def _take_data_command(self) -> None:
        self._after_data = True
        if self._recipients or (self._lenient_data and self._open):
            self._in_data = self._say("DATA", self._mail) == 354
        elif self._lenient_data:
            self._in_data = True
            self._put(354, "DATA", self._mail)
        else:
            self._put(503, "DATA", self._mail)
        assert not self._buffer, "octets behind DATA"

    def _take_data(self) -> bool:
        # As if a line end stood before the content, so that a lone dot ends it.
        content, ended, rest = (b"\r\n" + self._buffer).partition(b"\r\n.\r\n")
        if not ended:
            return False
        self._buffer = rest
        self._in_data = False
        if content or self._recipients:
            self._end_of_content(".")
        else:
            # RFC 2033 4.2 has no reply here for LMTP.
            assert not self._lmtp, "an end of data that no reply is owed for"
            self._put(554, ".", self._mail)
        return True

    def _end_of_content(self, verb: str) -> None:
        self.whole.add(self._mail)
        recipients = list(self._recipients)
        if not recipients:
            if not self._lmtp:
                self._put(503, verb, self._mail)
            elif self._bdat_for_nobody is not None:
                self._put(self._bdat_for_nobody, verb, self._mail)
            return
        if self._lmtp:
            codes = []
            for recipient in recipients:
                if 421 in codes:
                    # It is said of the content, and the rest with it.
                    if not self.dead:
                        self._put(421, verb, self._mail, recipient)
                    continue
                codes.append(self._say(verb, self._mail, recipient))
                if codes[-1] < 300:
                    self.accepted.append(recipient)
            if max(codes) < 300:
                self._reset()
        elif self._say(verb, self._mail) < 300:
            self.accepted.extend(recipients)
            self._reset()

    def _reset(self) -> None:
        self._open = False
        self._recipients = []

    def _say(self, verb: str, mail: int, recipient: str | None = None) -> int:
        return self._put(self._decide(verb, mail, recipient), verb, mail, recipient)

    def _put(self, code: int, verb: str, mail: int, recipient: str | None = None) -> int:
        self.replies += 1
        self.says.append(Said(reply(code, f"{verb} {mail}"), verb, mail, recipient))
        if code == 421 and not self.goes_on:
            self.dead = True
        return code
