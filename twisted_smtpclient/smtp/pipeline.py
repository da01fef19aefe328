"""
One connection's transactions: what may be written, and whose reply this is.

Theory of operation
===================

Transactions that were begun stand in ``_outstanding`` in the order in which
they were written; each reply belongs to the first of them that is owed one.
What may be written, and where the sender waits for the receiver, stands in
:mod:`~twisted_smtpclient.smtp.sender`; what becomes of a mail, and who is in
doubt when the connection ends, in :mod:`~twisted_smtpclient.smtp.outcomes`;
here stands whose reply a reply is, and what follows when it is not the one
that was hoped for.

Course corrections
------------------

==============================================  ================================
the server says                                 what follows
==============================================  ================================
4xx, 5xx to MAIL or to each RCPT, DATA not yet  neither DATA nor content is
written                                         written
the same, DATA answered with 354                a lone dot, its reply ignored;
                                                over LMTP, where no reply is
                                                owed, the connection ends
4xx, 5xx to DATA                                no content
4xx, 5xx while the content is being written     it is the verdict; the
                                                connection is aborted without
                                                an end of data
500, 502 to BDAT, which was never taken on      the server reads the content as
this connection                                 commands: abort, believe nothing
                                                more
421 to anything                                 nothing more is written; what it
                                                still says counts, until it
                                                closes or a short bound passes
503 to each RCPT behind MAIL's 2xx, or to DATA  the server lost commands of the
or BDAT behind a RCPT's 2xx                     group: nothing more is written,
                                                the mail goes again without
                                                PIPELINING
4xx, 5xx to RSET                                the same, and the mail behind it
                                                goes elsewhere
503, 554 to BDAT over LMTP, no recipient        taken, though none is owed
accepted
2xx to RCPT or content after a refused MAIL or  protocol error
RSET; any reply that nobody is owed
==============================================  ================================
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from typing import Final

from ..errors import ConnectionLost, DeliveryError, ProtocolError
from .extensions import Extensions
from .mail import mail_command
from .outcomes import Outcomes
from .reply import Reply
from .sender import Sender
from .steps import COMMANDS, Command, Stage
from .transaction import Transaction

#: What a server that owes no reply to BDAT for nobody says to it all the same
#: (RFC 5321 3.3).  Neither is a reply to RSET, which is what stands behind it.
_NOBODY_TO_SEND_TO: Final = frozenset({503, 554})

#: Replies looked at in one go, where a mail has many recipients.
RUN: Final = 1024

_CONTENT_BLOCK: Final = Command("the content", "data_block", "the server took nothing more of the content")
_QUIT: Final = Command("QUIT", "quit", "no reply to QUIT")


class End(enum.Enum):
    """How the connection goes on."""

    #: it lives
    OPEN = enum.auto()
    #: the server said 421: hear it out for a short while, then abort
    LINGER = enum.auto()
    #: nothing is left to do: QUIT was answered
    CLOSE = enum.auto()
    #: end it now, without another octet
    ABORT = enum.auto()


class Pipeline:
    """
    The mails of one connection, from the end of the handshake to its own end.

    :param extensions: what the server offers.
    :param grouped: whether commands may be sent in groups (PIPELINING).
    :param chunked: whether contents go by BDAT (CHUNKING).
    :param depth: how many mails may be under way where grouped.
    :ivar end: how the connection goes on.
    :ivar accepts: whether a further mail may be submitted.
    :ivar answered: how many mails had all their replies.
    :ivar broken: the extension that the server offers and turned out not to
        have, if any.
    """

    def __init__(self, extensions: Extensions, *, grouped: bool, chunked: bool, depth: int = 10) -> None:
        # RFC 3030 3: a binary content goes by BDAT, or not at all.
        self.extensions = extensions if chunked else extensions.without("BINARYMIME")
        self.grouped = grouped
        self.chunked = chunked
        self.end = End.OPEN
        self.accepts = True
        self.answered = 0
        self.broken: str | None = None
        self._outstanding: deque[Transaction] = deque()
        self._sender = Sender(self._outstanding, grouped=grouped, chunked=chunked, depth=depth)
        self._outcomes = Outcomes()
        self._doomed: Transaction | None = None
        #: the last mail's BDAT may be refused, though no reply is owed
        self._may_be_refused_once_more = False
        #: the server took a content by BDAT
        self._bdat_is_known = False
        #: why nothing more is written, where replies still count
        self._farewell = ""

    def __repr__(self) -> str:
        return (
            f"<Pipeline {self.end.name}, {len(self._outstanding)} outstanding, "
            f"{len(self._sender.queue)} queued, {self.begun} begun>"
        )

    # What the caller asks.

    @property
    def finished(self) -> list[Transaction]:
        """Mails whose outcome was settled, and that the caller has not taken."""
        return self._outcomes.finished

    def take_finished(self) -> list[Transaction]:
        """Those, which are the caller's from now on."""
        return self._outcomes.take()

    @property
    def begun(self) -> int:
        """How many mails were begun."""
        return self._sender.begun

    @property
    def under_way(self) -> int:
        """How many mails are queued, or begun and not heard out."""
        return len(self._sender.queue) + len(self._outstanding)

    @property
    def awaiting(self) -> Command | None:
        """What the connection waits for now; None where it waits for nothing."""
        if self._outstanding:
            head = self._outstanding[0]
            return COMMANDS[head.awaited] if head.owed else _CONTENT_BLOCK
        return _QUIT if self._sender.quit_written else None

    # What the caller does.

    def submit(self, transaction: Transaction) -> None:
        """
        Queue a mail.

        :raises MessageTooLarge: the server announced a smaller limit.
        :raises ExtensionUnsupported: it does not offer what the mail needs.
            Either way the connection is as it was.
        """
        transaction.mail = mail_command(transaction.envelope, transaction.content, self.extensions)
        self._sender.queue.append(transaction)

    def finish(self) -> None:
        """No further mail will come: write QUIT as soon as it can go."""
        self._sender.finishing = True
        self.accepts = False

    def rest(self) -> None:
        """The connection is idle until the next mail, if nothing is under way."""
        if not self.under_way:
            self._sender.rest()

    def output(self) -> bytes:
        """
        What may be written now, in one write; empty where there is nothing.

        Call it again while it gives something and the transport takes it.
        It may settle outcomes, also where it gives nothing: a mail that no
        recipient is left of ends where its next command would have stood.
        """
        while True:
            octets = self._sender.output()
            cut = self._sender.cut
            if cut is not None:
                self._see_to_cut(cut)
            if octets or cut is None:
                return octets

    def hold(self) -> None:
        """
        What :meth:`output` gives from now on is not written before
        :meth:`release`.  Until then no reply can answer it, and if the
        connection ends it was not sent; nor is it after :attr:`end` has left
        OPEN.
        """
        self._outcomes.hold(self._sender.begun, self._sender.writing)

    def release(self) -> None:
        """What was held back is given to the transport."""
        self._outcomes.release()

    def take(self, replies: Sequence[Reply]) -> None:
        """
        Take replies in order, as :meth:`receive` does one.

        Where nothing goes wrong, those to one group are taken at once: of
        many mails it is most of the work.
        """
        at, count = 0, len(replies)
        outstanding = self._outstanding
        while at < count:
            if outstanding and self.end is End.OPEN and not self._outcomes.holds(outstanding[0]):
                head = outstanding[0]
                end = at + head.owed
                if head.smooth and at < end <= count and head.receive_hoped_for(replies, at, end):
                    at = end
                    if head.outcome is not None:
                        self._finish_well(head)
                    continue
                if count - at > 2 and (taken := head.receive_accepted(replies[at : at + RUN])):
                    at += taken
                    continue
            self.receive(replies[at])
            at += 1

    def receive(self, reply: Reply) -> None:
        """
        Take a reply; it answers what has been outstanding the longest.

        Outcomes that it settles are added to :attr:`finished`.
        """
        if self.end is End.ABORT:
            return
        if self._may_be_refused_once_more:
            # Only the reply that is next: behind it stands RSET's or QUIT's.
            self._may_be_refused_once_more = False
            if reply.code in _NOBODY_TO_SEND_TO:
                return
        if reply.code == 421:
            self._outcomes.nothing_behind = True
            self._linger(f"the server closed the session: {reply.text}")
        if not self._outstanding or self._outcomes.holds(self._outstanding[0]):
            self._unasked(reply)
            return
        head = self._outstanding[0]
        cut_short = head.stage is Stage.CONTENT and not head.owed
        try:
            head.receive(reply)
        except ProtocolError as error:
            if reply.code != 421:
                self.fail(error)
                return
        if head.rset_refused:
            # It may keep an envelope open, and would send the next mail's
            # content to that one's recipients.  So also where RSET was all
            # that was written of a mail, for it was cancelled since.
            self._linger(f"the server refused RSET: {reply.text}")
        if head.dismissed and not self._bdat_is_known:
            self._dismissed(reply)
        elif head.finished:
            self._finish_head()
            if cut_short:
                self.lost(ConnectionLost("given up, for a content was refused before its end"))
        self._abort_if_heard_out()

    def cancel(self, transaction: Transaction, error: DeliveryError) -> None:
        """
        Settle one mail with ``error`` now, whatever its neighbors do.

        What is known of its recipients is put into the error.
        """
        if transaction.outcome is not None:
            return
        transaction.smooth = False
        stage = transaction.stage
        if stage is Stage.QUEUED:
            self._sender.queue.remove(transaction)
        self._outcomes.cancel(transaction, error)
        if stage in (Stage.ENVELOPE, Stage.ADDRESSED):
            # Its replies are heard out; the next mail's RSET ends it there.
            self._sender.cut_short(transaction)
            self._see_to_cut(transaction)
        elif stage in (Stage.DATA, Stage.CONTENT):
            # Only an end of data would end it, and that would send it.
            self._doom(transaction)

    def fail(self, error: DeliveryError) -> None:
        """
        End the connection for a fault, such as a reply that did not come in
        time; ``error`` is the outcome of the mail that it happened to.
        """
        self.end = End.ABORT
        self.accepts = False
        if self._outstanding and not self._outcomes.holds(self._outstanding[0]):
            self._outcomes.conclude(self._outstanding.popleft(), error, moves=False)
        self.lost(ConnectionLost(f"the connection was given up: {error}"))

    def lost(self, error: DeliveryError) -> None:
        """
        The connection has ended: every mail left gets its outcome.

        A mail that is certain not to have been done is ``untouched``, with
        ``error`` as its outcome.
        """
        self.end = End.ABORT
        self.accepts = False
        self._doomed = None
        self._sender.stop()
        while self._outstanding:
            self._outcomes.conclude(self._outstanding.popleft(), error)
        while self._sender.queue:
            self._outcomes.conclude(self._sender.queue.popleft(), error)

    # The corrections.

    def _see_to_cut(self, transaction: Transaction) -> None:
        """The sender has ended a mail before its content."""
        self._sender.cut = None
        if transaction.finished:
            self._finish_head()
        if self._sender.dead_end:
            # Over LMTP, behind 354 to a mail with no recipient.
            self.lost(ConnectionLost("given up behind a mail with no recipient"))

    def _doom(self, transaction: Transaction) -> None:
        """Write nothing more at all, and abort once the mails ahead are heard."""
        self._doomed = transaction
        self.accepts = False
        self._sender.stop()
        self._abort_if_doomed()

    def _abort_if_doomed(self) -> None:
        if self._doomed is not None and self._outstanding[0] is self._doomed:
            self.lost(ConnectionLost("given up, for a mail was cancelled in its content"))

    def _linger(self, why: str) -> None:
        """Write nothing more; the replies that still come count."""
        if self.end is End.OPEN:
            self.end = End.LINGER
            self.accepts = False
            self._sender.stop()
            self._farewell = why

    def _abort_if_heard_out(self) -> None:
        # Nothing more is written, so nothing more can be answered.
        if self.end is not End.LINGER:
            return
        head = self._outstanding[0] if self._outstanding else None
        if head is None or not head.owed or self._outcomes.holds(head):
            self.lost(ConnectionLost(self._farewell))

    def _unasked(self, reply: Reply) -> None:
        """A reply with nothing outstanding, or nothing that was written: QUIT's, or the end."""
        if self._sender.quit_written and not self._outstanding:
            self.end = End.CLOSE
        elif reply.code == 421:
            # An orderly end, and what is queued has not begun.
            self.lost(ConnectionLost(f"the server closed the session: {reply.text}"))
        else:
            self.fail(ProtocolError(f"a reply that nobody asked for: {reply.text!r}"))

    def _dismissed(self, reply: Reply) -> None:
        """500 or 502 to BDAT: so it took no BDAT behind this one either."""
        self.broken = "CHUNKING"
        self._outcomes.nothing_behind = True
        error = ProtocolError(f"the server offers CHUNKING and does not know BDAT: {reply.text!r}")
        head = self._outstanding.popleft()
        # Over LMTP it may be one recipient's verdict, and the others have
        # theirs still to come.
        in_doubt = head.lmtp and head.accepted > 1 and head.stage is Stage.WHOLE
        if not in_doubt:
            head.no_verdict()
        self._outcomes.settle_error(head, error, in_doubt=in_doubt, untouched=not in_doubt)
        self.lost(error)

    def _group_was_lost(self, head: Transaction) -> None:
        """PIPELINING does not work here: this mail goes again, without."""
        self.broken = "PIPELINING"
        error = ProtocolError("the server offers PIPELINING and lost a command of a group")
        self._linger(str(error))
        self._outcomes.settle_error(head, error, untouched=True)
        self._abort_if_heard_out()

    # Outcomes.

    def _finish_well(self, head: Transaction) -> None:
        """Every reply to a whole mail was a 2xx: what :meth:`_finish_head` comes to then."""
        self._outstanding.popleft()
        if head is self._sender.last:
            self._sender.heard_out(head, ended_well=True)
        if head.chunked:
            self._bdat_is_known = True
        self.answered += 1
        self._outcomes.finished.append(head)
        if self._doomed is not None:
            self._abort_if_doomed()

    def _finish_head(self) -> None:
        """The mail outstanding the longest has all its replies."""
        head = self._outstanding[0]
        verdict = None if head.moves else head.verdict()
        self._outstanding.popleft()
        self._sender.heard_out(head, ended_well=head.ended_well)
        self._may_be_refused_once_more = head.may_be_refused_once_more
        self._bdat_is_known = self._bdat_is_known or head.bdat_taken
        if head.group_was_lost:
            self._group_was_lost(head)
        elif verdict is not None:
            self.answered += 1
            self._outcomes.settle(head, verdict)
        else:
            error = ConnectionLost("the server ended the session before this mail")
            self._outcomes.settle_error(head, error, untouched=True)
        self._abort_if_doomed()
