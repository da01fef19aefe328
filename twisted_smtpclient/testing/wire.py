"""
Octets of the client in; a batch of replies and steps out.

What is no matter of the single command stands here: where a command, a
content and a handshake begin and end, what may be sent before which reply,
and faults in the place of replies.  No transport and no clock is known here.
What the client did wrong goes into :attr:`Session.violations`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from . import grammar, replies
from .content import ChunkReader, DotReader
from .faults import Fault, FaultPlan, Stage, ends_session, heard, said, steps_of
from .outbox import Batch
from .records import Session
from .replies import Settings

#: What need not be the last of its group (RFC 2920 3.1; BDAT: RFC 3030 4.2).
#: What no RFC names must be last.
_GROUPABLE: Final = frozenset({"MAIL", "RCPT", "RSET", "BDAT", "content"})

#: Violations told of one session; at some 150 octets each, 150 KB of a client that does nothing right.
MAX_VIOLATIONS: Final = 1000

#: The first octet of a reply that lets a command take effect.
POSITIVE: Final = ord("2")
INTERMEDIATE: Final = ord("3")


class Reading(Enum):
    """What the next octet belongs to."""

    COMMAND = auto()
    #: The rest of a line that was too long.
    LONG_LINE = auto()
    #: A line of an authentication exchange.
    RESPONSE = auto()
    CONTENT = auto()
    #: Octets between STARTTLS and the handshake: nobody may send any (RFC 3207 4.2).
    BEFORE_TLS = auto()
    #: A handshake whose place a fault takes.
    HANDSHAKE = auto()
    AFTER_QUIT = auto()
    #: Nothing: the session is over.
    NOTHING = auto()


class Wire:
    """
    :param busy: whether replies have not all been written yet: what the client
        sends meanwhile it sends without having seen them.
    :ivar batch: what is to be said, filled by :meth:`greet` and
        :meth:`receive` and taken away by the caller.
    :ivar idle: a mail has had its final reply, and nothing came in since.
    :ivar quit: the client has said QUIT.
    :ivar ended_by_fault: a fault has closed or reset the connection.
    """

    def __init__(
        self, settings: Settings, plan: FaultPlan, session: Session, busy: Callable[[], bool]
    ) -> None:
        self.batch: Batch = []
        self.idle = False
        self.quit = False
        self.ended_by_fault = False
        self._settings = settings
        self._phrases = settings.phrases
        self._plan = plan
        self._session = session
        self._busy = busy
        self._tail = b""
        self._reading = Reading.COMMAND
        self._readers: dict[Reading, Callable[[bytes, int], int]] = {
            Reading.COMMAND: self._read_command,
            Reading.LONG_LINE: self._read_long_line,
            Reading.CONTENT: self._read_content,
            Reading.BEFORE_TLS: self._read_before_tls,
            Reading.HANDSHAKE: self._read_handshake,
            Reading.AFTER_QUIT: self._read_after_quit,
            Reading.NOTHING: lambda data, at: len(data),
        }
        # Whether something but QUIT was answered since the last turn.
        self._answered = False
        self._turned_away = False
        # The command or content whose reply the client may not have seen yet.
        self._previous = "the greeting"
        self._handshake_fault: Fault | None = None
        # What went out as the last reply, and what the client believes was said.
        self._heard = self._believed = b""
        self._offered: replies.Offers = {}
        self._long_line_reply = replies.LINE_TOO_LONG
        self._content: DotReader | ChunkReader | None = None
        self._content_fault: Fault | None = None
        # Octets of this mail's content in the chunks before the current one.
        self._chunks_taken = 0
        # What a fault said in the place of the final reply, before the content's end.
        self._early_reply: bytes | None = None

    # What a dialogue adds.

    def _forget(self) -> None:
        raise NotImplementedError

    def _command(self, line: bytes) -> None:
        raise NotImplementedError

    def _content_ended(self) -> None:
        raise NotImplementedError

    def _by_smtputf8(self) -> bool:
        """Whether the mail under way was announced with SMTPUTF8."""
        raise NotImplementedError

    # What the protocol calls.

    def greet(self) -> None:
        self._turned_away = self._say(Stage.GREETING, self._settings.greeting) != POSITIVE
        self._answered = False

    def fail_handshake(self, fault: Fault) -> None:
        """A fault takes the place of the server's part in the TLS handshake."""
        self._handshake_fault = fault
        self._reading = Reading.HANDSHAKE

    def tls_begins(self) -> None:
        """The 220 to STARTTLS has gone out."""
        self._forget()
        self._reading = Reading.COMMAND
        self._previous = "the handshake"

    def fail_idle(self, fault: Fault) -> None:
        """Unasked: the client has had its final reply and said nothing since."""
        self._utter(b"", fault)
        self._answered = False

    def receive(self, data: bytes) -> None:
        """Take in what one read brought."""
        self.idle = False
        if self._tail:
            data = self._tail + data
            self._tail = b""
        at, end = 0, len(data)
        while at < end:
            at = self._readers[self._reading](data, at)

    def turn_ended(self) -> bool:
        """Whether all that came in is answered now, and somebody waits for the answer; asked once a read."""
        if not self._answered or self._tail or self._reading is Reading.LONG_LINE:
            return False
        if self._reading is Reading.CONTENT and self._content is not None and self._content.begun:
            return False
        self._answered = False
        return True

    def unfinished(self) -> int:
        """Octets of a content that has not ended."""
        return self._chunks_taken + (self._content.taken if self._content is not None else 0)

    # Readers: each takes octets from ``at`` on and returns where the rest begins.

    def _read_command(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        if (end if end >= 0 else len(data)) - at >= self._settings.max_line:
            self._violation(f"a command line of over {self._settings.max_line} octets")
            self._previous = "a line that was too long"
            self._long_line_reply = replies.LINE_TOO_LONG
            self._reading = Reading.LONG_LINE
            return at
        if end < 0:
            self._tail = data[at:]
            self.idle = False
            return len(data)
        if end > at and data[end - 1] == 13:
            line = data[at : end - 1]
        else:
            line = data[at:end]
            self._violation(f"a command ended with a bare LF: {line[:80]!r}")
        self._command(line)
        return end + 1

    def _read_long_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        if end < 0:
            return len(data)
        self._reading = Reading.COMMAND
        self._utter(self._phrases[self._long_line_reply], None)
        return end + 1

    def _read_content(self, data: bytes, at: int) -> int:
        content = self._content
        assert content is not None  # this state is entered with one
        if not content.begun and self._unseen():
            self._violation("content was sent before the reply to DATA")
        fault = self._content_fault
        if fault is not None:
            # Exactly so many octets, then the fault, then what is left of the read.
            data = data[: at + fault.after_octets - self.unfinished()]
        after = content.feed(data, at)
        if after >= 0:
            self._content_ended()
            return after
        if fault is not None and self.unfinished() >= fault.after_octets:
            self._fail_content()
        return len(data)

    def _read_before_tls(self, data: bytes, at: int) -> int:
        self._violation("octets behind STARTTLS before the handshake")
        return len(data)

    def _read_handshake(self, data: bytes, at: int) -> int:
        if self._unseen():
            return self._read_before_tls(data, at)
        if self._handshake_fault is not None:
            self._utter(b"", self._handshake_fault)
        self._reading = Reading.NOTHING
        return len(data)

    def _read_after_quit(self, data: bytes, at: int) -> int:
        self._violation("octets behind QUIT")
        self._reading = Reading.NOTHING
        return len(data)

    def _fail_content(self) -> None:
        fault, self._content_fault = self._content_fault, None
        if fault is not None:
            self._utter(self._phrases[replies.OK], fault)
            self._early_reply = self._heard

    # Replies.

    def _unseen(self) -> bool:
        """Whether there are replies that the client cannot have seen."""
        return bool(self.batch) or self._busy()

    def _violation(self, what: str) -> None:
        if len(self._session.violations) < MAX_VIOLATIONS:
            self._session.violations.append(what)

    def _say(self, stage: Stage, own: bytes) -> int:
        """
        Answer at this stage, or let a fault do so.

        :returns: the first octet of what the client is made to believe.
        """
        fault = self._plan.take(stage, self._session.number) if self._plan.faults else None
        return self._utter(own, fault)

    def _say_text(self, stage: Stage, text: str) -> int:
        return self._say(stage, self._phrases[text])

    def _utter(self, own: bytes, fault: Fault | None) -> int:
        if fault is None:
            self._heard = believed = own
            if own:
                self.batch.append(own)
        else:
            fault = fault.in_answer_to(own)
            self.batch.extend(steps_of(fault, own))
            self._heard = heard(fault, own)
            believed = said(fault, own)
        self._answered = True
        if self._settings.keep_transcript:
            self._session.transcript.extend(("S", line) for line in self._heard.splitlines())
        if fault is not None and ends_session(fault):
            self._reading = Reading.NOTHING
            self.ended_by_fault = True
            return 0
        self._believed = believed
        return believed[0] if believed else 0

    def _check_group(self, name: str) -> None:
        previous = self._previous
        if previous not in _GROUPABLE:
            self._violation(f"{name} was sent before the reply to {previous}, which must be last of a group")
        elif "PIPELINING" not in self._offered:
            self._violation(f"{name} was sent before the reply to {previous}; PIPELINING is not offered")

    def _check_octets(self, name: str, line: bytes) -> None:
        if grammar.CONTROL.search(line):
            self._violation(f"a control character in {name}: {line[:80]!r}")
        if not line.isascii():
            asked = b" SMTPUTF8" in line.upper() or (name == "RCPT" and self._by_smtputf8())
            if not (asked and "SMTPUTF8" in self._offered and name in ("MAIL", "RCPT", "VRFY")):
                self._violation(f"octets over 127 in {name} without SMTPUTF8: {line[:80]!r}")
