"""
One mail on one connection: MAIL to the end of its content.

A transaction is one plan with two positions in it.  The *sender*'s is
:class:`~.steps.Stage`, moved by :mod:`~twisted_smtpclient.smtp.sender` as octets
are written; the *receiver*'s is :class:`~.steps.Awaited`, moved here as replies come.
Between them stands ``owed``, the number of replies to what was written.  A
reply while nothing is owed came too early: the server cannot know what it
answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

from ..errors import DeliveryError, ProtocolError
from .content import Content
from .envelope import Envelope
from .reply import Reply
from .result import VERDICTS, DeliveryResult, RecipientStatus, Status, one_verdict
from .steps import COMMANDS, Awaited, Stage
from .trace import Witness

_code_of: Final = attrgetter("code")

#: BDAT is not a command to this server, whatever it offered.
_UNKNOWN_COMMAND: Final = frozenset({500, 502})

#: In the place of a 2xx to RCPT, of which the code is all that counts.
_ACCEPTED: Final = Reply(250, (b"250",))


class Transaction:
    """
    One mail, its replies, and what they make of each recipient.

    :param lmtp: whether the end of the content has a reply for each accepted
        recipient (RFC 2033 section 4.2).
    :ivar outcome: the server's verdict, or why there is none; None while it
        is under way.
    :ivar untouched: whether it is certain that the server did nothing with
        this mail and has no verdict on it, so that it may go elsewhere.
    :ivar number: how many were begun on its connection before it.
    :ivar rset_refused: whether the server refused the RSET before it.
    :ivar dismissed: whether the server turned out not to know BDAT.
    :ivar owner: for whoever gave it: what it belongs to.
    :ivar on_settled: for whoever moves the octets: what is told the outcome.
    :ivar witness: sees what is said for it; None for nobody.
    """

    untouched = False
    dismissed = False

    # The sender's position.  Defaults stand here and not in the constructor:
    # of most mails most of them never change, and there are many mails.
    first = False
    grouped = False
    chunked = False
    mail = b""
    rcpts_written = 0
    number = 0

    # The receiver's.
    owed = 0
    #: it goes in groups, and each reply so far was the one that was hoped for
    smooth = False
    accepted = 0
    go_ahead = False
    rset_refused = False
    _contradicted = False
    _sequence_lost = False
    #: lists from the first one on
    _rcpt_replies: Sequence[Reply] = ()
    _final_replies: Sequence[Reply] = ()

    def __init__(self, envelope: Envelope, content: Content, *, lmtp: bool = False) -> None:
        self.envelope = envelope
        self.content = content
        self.lmtp = lmtp
        self.stage: Stage = Stage.QUEUED
        self.awaited: Awaited = Awaited.MAIL
        self.outcome: DeliveryResult | DeliveryError | None = None
        self.owner: Any = None
        self.on_settled: Callable[[Transaction], None] | None = None
        self.witness: Witness | None = None
        #: the reply that ended the mail for all not refused by then
        self._decided: tuple[Reply, str] | None = None
        #: a 421 before the end of the content
        self._hung_up: tuple[Reply, str] | None = None
        #: over LMTP, a 421 in place of recipients' replies
        self._last_word: tuple[Reply, str] | None = None

    def __repr__(self) -> str:
        return f"<Transaction {self.stage.name}, {self.owed} owed, next {self.awaited.name}>"

    # The sender's side.

    def mail_written(self) -> bytes:
        """The MAIL command, which is written from now on."""
        command, self.mail = self.mail, b""
        self.owed += 1
        if self.witness is not None:
            self.witness.said(command)
        return command

    def content_written(self) -> None:
        """
        The last octet of the content was given to the transport.

        With LMTP it owes one reply for each accepted recipient; where those
        are not known yet it counts as one until the last RCPT is answered.
        """
        self.stage = Stage.WHOLE
        self.owed += self.accepted if self.lmtp and self.envelope_answered else 1

    @property
    def mail_is_written(self) -> bool:
        """Whether MAIL was given to the transport."""
        return self.stage is not Stage.QUEUED and not self.mail

    @property
    def mail_accepted(self) -> bool:
        """Whether MAIL was answered, with a 2xx."""
        return self.awaited > Awaited.MAIL and not self.hopeless

    @property
    def hopeless(self) -> bool:
        """Whether, by the replies so far, no recipient is left to send to."""
        if self._decided is not None or self.rset_refused:
            return True
        return not self.accepted and self.envelope_answered

    @property
    def finished(self) -> bool:
        """Whether nothing more is to be written or heard."""
        return self.stage >= Stage.WHOLE and not self.owed

    @property
    def envelope_answered(self) -> bool:
        """Whether each RCPT was answered."""
        return len(self._rcpt_replies) == len(self.envelope.recipients)

    # The receiver's side.

    def receive_hoped_for(self, replies: Sequence[Reply], start: int, end: int) -> bool:
        """
        Take all replies that are owed at once, if each is what one hopes for.

        Where they are the last ones, the mail has its outcome then.

        :param replies: from ``start`` on, and before ``end``, as many as are owed.
        :returns: False where one is not, and none was taken.
        """
        last = replies[end - 1]
        ends = self.chunked or self.awaited is Awaited.END_OF_DATA
        if not ends and last.code != 354:
            return False
        for at in range(start, end if ends else end - 1):
            if replies[at].code >= 300:
                return False
        if ends:
            envelope, command = self.envelope, "BDAT" if self.chunked else "."
            recipients = envelope.recipients
            self.accepted = count = len(recipients)
            if count > 1:
                last = last.among(count)
            self.outcome = DeliveryResult(envelope.sender, one_verdict(recipients, Status.OK, last, command))
            return True
        self.go_ahead = True
        self.awaited = Awaited.END_OF_DATA
        self.accepted = count = self.rcpts_written
        self._rcpt_replies = [_ACCEPTED] * count
        self.owed = 0
        return True

    def receive_accepted(self, replies: Sequence[Reply]) -> int:
        """
        Take replies to RCPT at once, if each is a 2xx; of a long list of
        recipients they are most of what comes.

        :param replies: from the one that is next, also of what comes behind.
        :returns: how many were taken.  The last RCPT's is never one of them.
        """
        if self.awaited is not Awaited.RCPT or self._decided is not None or self.rset_refused:
            return 0
        if self.witness is not None:
            return 0
        more = len(self.envelope.recipients) - len(self._rcpt_replies) - 1
        taken = replies[: min(more, self.owed)]
        if len(taken) < 2 or max(map(_code_of, taken)) >= 300:
            return 0
        self._rcpt_replies = _extended(self._rcpt_replies, [_ACCEPTED] * len(taken))
        self.accepted += len(taken)
        self.owed -= len(taken)
        return len(taken)

    def receive(self, reply: Reply) -> None:
        """
        Take the reply that is next.

        :raises ProtocolError: it cannot be the answer to that command.
        """
        if self.witness is None:
            self._receive(reply)
            return
        try:
            self._receive(reply)
        finally:
            self.witness.heard(reply)

    def _receive(self, reply: Reply) -> None:
        self.smooth = False
        early = not self.owed
        if reply.code == 421 and (self.awaited < Awaited.END_OF_DATA or early):
            self._hung_up = self._hung_up or (reply, COMMANDS[self.awaited].name)
        if not early:
            self.owed -= 1
        elif self.stage is not Stage.CONTENT or reply.code < 400:
            raise ProtocolError(f"a reply before its command was complete: {reply.text!r}")
        if reply.code == 503 and self.awaited is not Awaited.MAIL and not self.hopeless:
            self._sequence_lost = True
        reply = reply.among(len(self.envelope.recipients))
        _RECEIVE[self.awaited](self, reply)

    def _rset_reply(self, reply: Reply) -> None:
        self.rset_refused = not self._positive(reply)
        self.awaited = Awaited.MAIL

    def _mail_reply(self, reply: Reply) -> None:
        if not self._positive(reply):
            self._decided = (reply, "MAIL")
        self.awaited = Awaited.RCPT

    def _rcpt_reply(self, reply: Reply) -> None:
        if self._positive(reply):
            self._refuse_contradiction(reply)
            self.accepted += 1
            reply = _ACCEPTED
        self._rcpt_replies = _extended(self._rcpt_replies, (reply,))
        if self.envelope_answered:
            self.awaited = Awaited.BDAT if self.chunked else Awaited.DATA
            if self.lmtp and self.stage is Stage.WHOLE:
                # RFC 2033 4.3: none at all where no recipient was accepted.
                self.owed += self.accepted - 1

    def _data_reply(self, reply: Reply) -> None:
        if reply.code == 354:
            self.go_ahead = True
            self.awaited = Awaited.LONE_DOT if self.hopeless else Awaited.END_OF_DATA
        elif reply.code >= 400:
            self._decided = self._decided or (reply, "DATA")
            self.stage = Stage.CUT
        else:
            raise self._unexpected(reply)

    def _lone_dot_reply(self, reply: Reply) -> None:
        """Whatever it says: every recipient has its verdict already."""

    def _final_reply(self, reply: Reply) -> None:
        if self._positive(reply):
            self._refuse_contradiction(reply)
        if self.awaited is Awaited.BDAT and not self._final_replies:
            self.dismissed = reply.code in _UNKNOWN_COMMAND
        self._final_replies = _extended(self._final_replies, (reply,))
        if self.stage is Stage.CONTENT:
            # The verdict on all, before the end: the rest is not sent.
            self.stage = Stage.CUT
            self._decided = (reply, COMMANDS[self.awaited].name)
        elif not self.lmtp:
            self._decided = self._decided or (reply, COMMANDS[self.awaited].name)
        elif reply.code == 421:
            self._last_word = self._last_word or (reply, COMMANDS[self.awaited].name)

    def _positive(self, reply: Reply) -> bool:
        """Whether a reply is 2xx; 4xx and 5xx are not, 3xx has no place."""
        if reply.code >= 400:
            return False
        if reply.code >= 300:
            raise self._unexpected(reply)
        return True

    def _refuse_contradiction(self, reply: Reply) -> None:
        """
        A 2xx behind a refused MAIL or RSET: the server has an envelope open
        that is not this mail's, so no reply on this mail means anything.
        """
        if self.rset_refused or (self._decided is not None and self._decided[1] == "MAIL"):
            self._contradicted = True
            raise self._unexpected(reply)

    def _unexpected(self, reply: Reply) -> ProtocolError:
        return ProtocolError(f"unexpected reply to {COMMANDS[self.awaited].name}: {reply.text!r}")

    # What it comes to.

    @property
    def content_answered(self) -> bool:
        """Whether a final reply came, if only for one recipient of many."""
        return bool(self._final_replies)

    @property
    def bdat_taken(self) -> bool:
        """Whether the server took a content by BDAT, for anybody."""
        return self.chunked and any(reply.code < 300 for reply in self._final_replies)

    @property
    def may_be_refused_once_more(self) -> bool:
        """
        Whether a BDAT that is owed no reply may have one all the same.

        Over LMTP none is owed where no recipient was accepted (RFC 2033
        section 4.3), but servers say 503 to it: Dovecot after a refused MAIL,
        others always.
        """
        return self.lmtp and self.chunked and not self.accepted and self.stage is Stage.WHOLE

    @property
    def all_accepted(self) -> bool:
        """Whether each RCPT was answered with a 2xx."""
        return self.accepted == len(self.envelope.recipients)

    @property
    def ended_well(self) -> bool:
        """Whether the transaction is known to have ended with 2xx to its content."""
        finals = self._final_replies
        return self.accepted > 0 and bool(finals) and all(reply.code < 300 for reply in finals)

    @property
    def group_was_lost(self) -> bool:
        """
        Whether the server lost a command of a group that it invites.

        It took MAIL and says 503 (bad sequence of commands) to each RCPT, or
        took a RCPT and says it to DATA or BDAT: it threw away what it had
        read with the command before.  Behind a 421 that means nothing.
        """
        if not (self._sequence_lost and self.grouped) or self.rset_refused or self._hung_up is not None:
            return False
        if not self.accepted:
            return all(reply.code == 503 for reply in self._rcpt_replies)
        return self._decided is not None and self._decided[0].code == 503

    @property
    def moves(self) -> bool:
        """
        Whether the server ended the connection here, and not this mail.

        A 421 before the end of the content is that, on a connection that has
        carried another mail; so is a refused RSET.
        """
        if any(reply.code < 300 for reply in self._final_replies):
            return False
        return self.rset_refused or (self._hung_up is not None and not self.first)

    def no_verdict(self) -> None:
        """What the server said of its content is none: it did not read it as one."""
        self._decided = None
        self._final_replies = ()

    def verdict(self) -> DeliveryResult | None:
        """The server's verdict, or None where a recipient has none yet."""
        recipients = self.statuses()
        decided = self._decided is not None and not self._contradicted
        if not decided and any(entry.status is Status.UNKNOWN for entry in recipients):
            return None
        return DeliveryResult(self.envelope.sender, recipients)

    def last_words(self) -> DeliveryResult | None:
        """
        The verdict, now that no further reply comes.

        A server that hung up with 421 has said it to every recipient that it
        had not refused by then.
        """
        if not self._contradicted:
            self._decided = self._decided or self._hung_up or self._last_word
        return self.verdict()

    def statuses(self, *, in_doubt: bool = False) -> list[RecipientStatus]:
        """
        What is known of each recipient.

        :param in_doubt: whether those without a verdict are in doubt.
        """
        recipients = self.envelope.recipients
        unknown = Status.UNKNOWN
        if self.accepted == len(recipients) and self._decided is not None and not self.lmtp:
            reply, command = self._decided
            return one_verdict(recipients, VERDICTS[reply.code // 100], reply, command)
        if self._contradicted:
            return [RecipientStatus(entry.address, unknown, in_doubt=in_doubt) for entry in recipients]
        decided = self._decided
        if decided is not None and decided[1] == "MAIL":
            return [_status(entry.address, *decided) for entry in recipients]
        command = COMMANDS[self.awaited].name
        answers = iter(self._rcpt_replies)
        finals = iter(self._final_replies if self.lmtp else [])
        entries = []
        for recipient in recipients:
            answer = next(answers, None)
            if answer is not None and answer.code >= 400:
                entries.append(_status(recipient.address, answer, "RCPT"))
            elif answer is not None and (final := next(finals, None)) is not None:
                entries.append(_status(recipient.address, final, command))
            elif decided is not None:
                entries.append(_status(recipient.address, *decided))
            else:
                entries.append(RecipientStatus(recipient.address, unknown, in_doubt=in_doubt))
        return entries


def _extended(replies: Sequence[Reply], more: Sequence[Reply]) -> list[Reply]:
    """Replies with more behind them: in place, but for the first."""
    if isinstance(replies, list):
        replies += more
        return replies
    return [*replies, *more]


def _status(address: str, reply: Reply, command: str) -> RecipientStatus:
    return RecipientStatus(address, VERDICTS[reply.code // 100], reply, command)


_RECEIVE: Final[dict[Awaited, Callable[[Transaction, Reply], None]]] = {
    Awaited.RSET: Transaction._rset_reply,
    Awaited.MAIL: Transaction._mail_reply,
    Awaited.RCPT: Transaction._rcpt_reply,
    Awaited.DATA: Transaction._data_reply,
    Awaited.END_OF_DATA: Transaction._final_reply,
    Awaited.LONE_DOT: Transaction._lone_dot_reply,
    Awaited.BDAT: Transaction._final_reply,
}
