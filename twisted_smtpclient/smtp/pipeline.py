"""
One connection's transactions: what may be written, whose reply this is, and
who is in doubt when the connection ends.

Theory of operation
===================

Transactions that were begun stand in ``_outstanding`` in the order in which
they were written; each reply belongs to the first of them that is owed one.
Only the last one begun, ``_writing``, may have octets left to write.  With
PIPELINING (RFC 2920) the sender runs ahead of the receiver and waits in these
places only:

* before the content, for 354 to DATA; behind it the next mail's RSET, MAIL,
  RCPT and DATA go in the same group (section 3.1);
* before ``BDAT``, for the envelope's replies, where the content is large; and
  for MAIL's, where the connection has been idle.  So a connection that went
  stale costs a mail no doubt, for no octet of its content was written.

Without PIPELINING, or where the terms say NO, each command waits for the
reply to the one before.

RSET stands before each MAIL but a connection's first, unless the transaction
before is known to have ended with a 2xx to its content: a server that refused
it may still have its envelope open, and would send this mail's content from
that mail's sender.

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

Doubt
-----

In doubt is a mail whose content was written whole, whose final reply is
missing, and before which nothing on the connection was answered with 421.
Replies come in order, so what stands behind a 421 was not done.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ..errors import ConnectionLost, DeliveryError, ProtocolError
from .extensions import Extensions
from .reply import Reply
from .result import DeliveryResult
from .transaction import COMMANDS, Awaited, Command, Stage, Transaction, mail_command

#: Octets for one write, where more is ready.  The pipeline stops here so that
#: the transport can say that it is full; what it holds of ours then is this
#: and one small content.
WRITE: Final = 65536

#: What a server that owes no reply to BDAT for nobody says to it all the same
#: (RFC 5321 3.3).  Neither is a reply to RSET, which is what stands behind it.
_NOBODY_TO_SEND_TO: Final = frozenset({503, 554})

#: RCPT commands that are joined at a time: at most 512 octets each without
#: parameters, so 64 KiB.
_RCPT_BATCH: Final = 128

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
    :ivar finished: mails whose outcome was settled, for the caller to take.
    :ivar end: how the connection goes on.
    :ivar accepts: whether a further mail may be submitted.
    :ivar begun: how many mails were begun.
    :ivar answered: how many mails had all their replies.
    :ivar broken: the extension that the server offers and turned out not to
        have, if any.
    """

    def __init__(self, extensions: Extensions, *, grouped: bool, chunked: bool, depth: int = 10) -> None:
        self.extensions = extensions
        self.grouped = grouped
        self.chunked = chunked
        self.finished: list[Transaction] = []
        self.end = End.OPEN
        self.accepts = True
        self.begun = 0
        self.answered = 0
        self.broken: str | None = None
        self._depth = depth if grouped else 1
        self._queue: deque[Transaction] = deque()
        self._outstanding: deque[Transaction] = deque()
        self._writing: Transaction | None = None
        self._last: Transaction | None = None
        self._doomed: Transaction | None = None
        #: of a large content: the block that is next, and those behind it
        self._block = b""
        self._blocks: Iterator[bytes] = iter(())
        self._needs_rset = False
        self._eager = True
        self._finishing = False
        self._quit_written = False
        #: what stands behind the reply just taken was not done
        self._nothing_behind = False
        #: the last mail's BDAT may be refused, though no reply is owed
        self._may_be_refused_once_more = False
        #: the server took a content by BDAT
        self._bdat_is_known = False
        #: why nothing more is written, where replies still count
        self._farewell = ""

    def __repr__(self) -> str:
        return (
            f"<Pipeline {self.end.name}, {len(self._outstanding)} outstanding, "
            f"{len(self._queue)} queued, {self.begun} begun>"
        )

    # What the caller asks.

    @property
    def under_way(self) -> int:
        """How many mails are queued, or begun and not heard out."""
        return len(self._queue) + len(self._outstanding)

    @property
    def awaiting(self) -> Command | None:
        """What the connection waits for now; None where it waits for nothing."""
        if self._outstanding:
            head = self._outstanding[0]
            return COMMANDS[head.awaited] if head.owed else _CONTENT_BLOCK
        return _QUIT if self._quit_written else None

    # What the caller does.

    def submit(self, transaction: Transaction) -> None:
        """
        Queue a mail.

        :raises MessageTooLarge: the server announced a smaller limit.
        :raises ExtensionUnsupported: it does not offer what the mail needs.
            Either way the connection is as it was.
        """
        transaction.mail = mail_command(transaction.envelope, transaction.content, self.extensions)
        self._queue.append(transaction)

    def finish(self) -> None:
        """No further mail will come: write QUIT as soon as it can go."""
        self._finishing = True
        self.accepts = False

    def rest(self) -> None:
        """The connection is idle until the next mail, if nothing is under way."""
        if not self.under_way:
            self._eager = False

    def output(self) -> bytes:
        """
        What may be written now, in one write; empty where there is nothing.

        Call it again while it gives something and the transport takes it.
        It may settle outcomes, also where it gives nothing: a mail that no
        recipient is left of ends where its next command would have stood.
        """
        pieces: list[bytes] = []
        size = 0
        while size < WRITE and (piece := self._next_piece()):
            pieces.append(piece)
            size += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def take(self, replies: Sequence[Reply]) -> None:
        """
        Take replies in order, as :meth:`receive` does one.

        Where nothing goes wrong, those to one group are taken at once: of
        many mails it is most of the work.
        """
        at, count = 0, len(replies)
        outstanding = self._outstanding
        while at < count:
            if outstanding and self.end is End.OPEN:
                head = outstanding[0]
                end = at + head.owed
                if head.unheard and end <= count and head.receive_group(replies[at:end]):
                    at = end
                    if head.chunked:
                        self._finish_well(head)
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
            self._nothing_behind = True
            self._linger(f"the server closed the session: {reply.text}")
        if not self._outstanding:
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
        if head.dismissed and not self._bdat_is_known:
            self._dismissed(reply)
        elif head.finished:
            self._finish_head()
            if cut_short:
                self.lost(ConnectionLost("given up, for a content was refused before its end"))
        elif head.moves:
            self._linger(f"the server refused RSET: {reply.text}")
        self._abort_if_heard_out()

    def cancel(self, transaction: Transaction, error: DeliveryError) -> None:
        """
        Settle one mail with ``error`` now, whatever its neighbors do.

        What is known of its recipients is put into the error.
        """
        if transaction.outcome is not None:
            return
        transaction.unheard = False
        stage = transaction.stage
        if stage is Stage.QUEUED:
            self._queue.remove(transaction)
        self._settle_error(transaction, error, in_doubt=self._may_be_done(transaction))
        if stage in (Stage.ENVELOPE, Stage.ADDRESSED):
            # Its replies are heard out; the next mail's RSET ends it there.
            self._cut(transaction)
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
        if self._outstanding:
            self._conclude(self._outstanding.popleft(), error, moves=False)
        self.lost(ConnectionLost(f"the connection was given up: {error}"))

    def lost(self, error: DeliveryError) -> None:
        """
        The connection has ended: every mail left gets its outcome.

        A mail that is certain not to have been done is ``untouched``, with
        ``error`` as its outcome.
        """
        self.end = End.ABORT
        self.accepts = False
        self._writing = self._doomed = None
        self._block, self._blocks = b"", iter(())
        while self._outstanding:
            self._conclude(self._outstanding.popleft(), error)
        while self._queue:
            self._conclude(self._queue.popleft(), error)

    # The sender.

    def _next_piece(self) -> bytes:
        """The octets that may be written next; empty where the sender waits."""
        while self.end is End.OPEN and self._doomed is None:
            transaction = self._writing
            if transaction is None:
                return self._begin()
            piece = _SEND[transaction.stage](self, transaction)
            if piece or self._writing is transaction:
                return piece
        return b""

    def _begin(self) -> bytes:
        """The start of the next mail, or QUIT behind the last."""
        if not self._queue:
            return self._quit()
        if len(self._outstanding) >= self._depth:
            return b""
        transaction = self._queue.popleft()
        rset, self._needs_rset = self._needs_rset, True
        self._outstanding.append(transaction)
        self._last = transaction
        transaction.first = not self.begun
        transaction.grouped = self.grouped
        transaction.chunked = self.chunked
        if rset:
            transaction.awaited = Awaited.RSET
        self.begun += 1
        if self._goes_in_one_group(transaction):
            return self._send_group(transaction, rset)
        self._writing = transaction
        transaction.stage = Stage.ENVELOPE
        if not rset:
            return transaction.mail_written()
        transaction.owed = 1
        return b"RSET\r\n"

    def _goes_in_one_group(self, transaction: Transaction) -> bool:
        """Whether nothing need be waited for up to 354, or to the end of the content."""
        if not self.grouped or transaction.lmtp or len(transaction.envelope.recipients) > _RCPT_BATCH:
            return False
        return not self.chunked or (self._eager and transaction.content.small)

    def _send_group(self, transaction: Transaction, rset: bool) -> bytes:
        """
        All of the envelope and the command behind it, with the content where
        it is chunked, in one piece: what most mails are.
        """
        recipients = transaction.envelope.recipients
        count = len(recipients)
        rcpts = recipients[0].command if count == 1 else b"".join([entry.command for entry in recipients])
        begin = b"RSET\r\n" + transaction.mail if rset else transaction.mail
        transaction.mail = b""
        transaction.rcpts_written = count
        transaction.owed = count + 3 if rset else count + 2
        transaction.unheard = True
        if self.chunked:
            content = transaction.content
            transaction.stage = Stage.WHOLE
            return b"%b%bBDAT %d LAST\r\n%b" % (begin, rcpts, content.size, content.for_bdat())
        self._writing = transaction
        transaction.stage = Stage.DATA
        return begin + rcpts + b"DATA\r\n"

    def _quit(self) -> bytes:
        if not self._finishing or self._quit_written or (self._outstanding and not self.grouped):
            return b""
        self._quit_written = True
        return b"QUIT\r\n"

    def _send_envelope(self, transaction: Transaction) -> bytes:
        if transaction.owed and not self.grouped:
            return b""
        if transaction.hopeless:
            return self._cut(transaction)
        if transaction.mail:
            return transaction.mail_written()
        recipients = transaction.envelope.recipients
        start = transaction.rcpts_written
        batch = recipients[start : start + (_RCPT_BATCH if self.grouped else 1)]
        transaction.rcpts_written += len(batch)
        transaction.owed += len(batch)
        if transaction.rcpts_written == len(recipients):
            transaction.stage = Stage.ADDRESSED
        return batch[0].command if len(batch) == 1 else b"".join([entry.command for entry in batch])

    def _send_content_command(self, transaction: Transaction) -> bytes:
        if transaction.owed and self._must_wait(transaction):
            return b""
        if transaction.hopeless:
            return self._cut(transaction)
        if not self.chunked:
            transaction.stage = Stage.DATA
            transaction.owed += 1
            return b"DATA\r\n"
        content = transaction.content
        command = b"BDAT %d LAST\r\n" % content.size
        if content.small:
            self._content_written(transaction)
            return command + content.for_bdat()
        self._content_begun(transaction, content.bdat_blocks())
        return command

    def _must_wait(self, transaction: Transaction) -> bool:
        """Whether DATA, or BDAT with the content, waits for a reply still owed."""
        if not self.grouped:
            return True
        if not self.chunked:
            return False
        if not transaction.content.small:
            return True
        return not (self._eager or transaction.mail_accepted)

    def _send_data(self, transaction: Transaction) -> bytes:
        if not transaction.go_ahead:
            return b""
        if transaction.hopeless:
            return self._lone_dot(transaction)
        content = transaction.content
        if content.small:
            self._content_written(transaction)
            return content.for_data()
        self._content_begun(transaction, content.data_blocks())
        return self._send_block(transaction)

    def _lone_dot(self, transaction: Transaction) -> bytes:
        self._writing = None
        if transaction.lmtp:
            # No reply is owed for it, so none would tell where it ends.
            transaction.stage = Stage.CUT
            self._finish_head()
            self.lost(ConnectionLost("given up behind a mail with no recipient"))
            return b""
        transaction.content_written()
        return b".\r\n"

    def _content_begun(self, transaction: Transaction, blocks: Iterator[bytes]) -> None:
        transaction.stage = Stage.CONTENT
        self._blocks = blocks
        self._block = next(blocks)

    def _send_block(self, transaction: Transaction) -> bytes:
        # One block ahead: with its last octet a content is whole, and not
        # when the transport asks for more.
        block, self._block = self._block, next(self._blocks, b"")
        if not self._block:
            self._content_written(transaction)
        return block

    def _content_written(self, transaction: Transaction) -> None:
        transaction.content_written()
        self._writing = None
        self._eager = True

    # The corrections.

    def _cut(self, transaction: Transaction) -> bytes:
        """Write nothing more of this mail; the next one goes on behind it."""
        transaction.stage = Stage.CUT
        self._writing = None
        if transaction.finished:
            self._finish_head()
        return b""

    def _doom(self, transaction: Transaction) -> None:
        """Write nothing more at all, and abort once the mails ahead are heard."""
        self._doomed = transaction
        self.accepts = False
        self._writing = None
        self._abort_if_doomed()

    def _abort_if_doomed(self) -> None:
        if self._doomed is not None and self._outstanding[0] is self._doomed:
            self.lost(ConnectionLost("given up, for a mail was cancelled in its content"))

    def _linger(self, why: str) -> None:
        """Write nothing more; the replies that still come count."""
        if self.end is End.OPEN:
            self.end = End.LINGER
            self.accepts = False
            self._farewell = why

    def _abort_if_heard_out(self) -> None:
        # Nothing more is written, so nothing more can be answered.
        if self.end is End.LINGER and not (self._outstanding and self._outstanding[0].owed):
            self.lost(ConnectionLost(self._farewell))

    def _unasked(self, reply: Reply) -> None:
        """A reply with nothing outstanding: QUIT's, or the end."""
        if self._quit_written:
            self.end = End.CLOSE
        elif reply.code == 421:
            # An orderly end, and what is queued has not begun.
            self.lost(ConnectionLost(f"the server closed the session: {reply.text}"))
        else:
            self.fail(ProtocolError(f"a reply that nobody asked for: {reply.text!r}"))

    def _dismissed(self, reply: Reply) -> None:
        """500 or 502 to BDAT: so it took no BDAT behind this one either."""
        self.broken = "CHUNKING"
        self._nothing_behind = True
        error = ProtocolError(f"the server offers CHUNKING and does not know BDAT: {reply.text!r}")
        head = self._outstanding.popleft()
        # Over LMTP it may be one recipient's verdict, and the others have
        # theirs still to come.
        in_doubt = head.lmtp and head.accepted > 1 and head.stage is Stage.WHOLE
        self._settle_error(head, error, in_doubt=in_doubt, untouched=not in_doubt)
        self.lost(error)

    def _group_was_lost(self, head: Transaction) -> None:
        """PIPELINING does not work here: this mail goes again, without."""
        self.broken = "PIPELINING"
        error = ProtocolError("the server offers PIPELINING and lost a command of a group")
        self._linger(str(error))
        self._settle_error(head, error, untouched=True)
        self._abort_if_heard_out()

    # Outcomes.

    def _finish_well(self, head: Transaction) -> None:
        """Every reply to a whole mail was a 2xx: what :meth:`_finish_head` comes to then."""
        self._outstanding.popleft()
        if head is self._last:
            self._last = None
            self._needs_rset = False
        self._bdat_is_known = True
        self.answered += 1
        self.finished.append(head)
        self._abort_if_doomed()

    def _finish_head(self) -> None:
        """The mail outstanding the longest has all its replies."""
        head = self._outstanding[0]
        verdict = None if head.moves else head.verdict()
        self._outstanding.popleft()
        if head is self._writing:
            self._writing = None
        if head is self._last:
            self._last = None
            self._needs_rset = not head.ended_well
        self._may_be_refused_once_more = head.may_be_refused_once_more
        self._bdat_is_known = self._bdat_is_known or head.bdat_taken
        if head.group_was_lost:
            self._group_was_lost(head)
        elif verdict is not None:
            self.answered += 1
            self._settle(head, verdict)
        else:
            error = ConnectionLost("the server ended the session before this mail")
            self._settle_error(head, error, untouched=True)
        self._abort_if_doomed()

    def _conclude(self, transaction: Transaction, error: DeliveryError, *, moves: bool = True) -> None:
        """The outcome of a mail whose replies will not all come."""
        if not transaction.moves and (verdict := transaction.last_words()) is not None:
            self._settle(transaction, verdict)
            return
        in_doubt = self._may_be_done(transaction)
        self._settle_error(transaction, error, in_doubt=in_doubt, untouched=moves and not in_doubt)

    def _may_be_done(self, transaction: Transaction) -> bool:
        """Whether the server may have taken the mail, and not told us yet."""
        if transaction.stage is not Stage.WHOLE:
            return False
        # A server that goes on to answer a content has done it, over LMTP
        # for each recipient, whatever it said before.
        return not self._nothing_behind or transaction.content_answered

    def _settle_error(
        self,
        transaction: Transaction,
        error: DeliveryError,
        *,
        in_doubt: bool = False,
        untouched: bool = False,
    ) -> None:
        if transaction.outcome is not None:
            # Cancelled; what comes of it now concerns nobody.
            return
        if transaction.mail_is_written:
            error = error.concerning(transaction.statuses(in_doubt=in_doubt))
        transaction.untouched = untouched
        self._settle(transaction, error)

    def _settle(self, transaction: Transaction, outcome: DeliveryResult | DeliveryError) -> None:
        if transaction.outcome is None:
            transaction.outcome = outcome
            self.finished.append(transaction)


#: What is written of ``_writing``, which is past QUEUED and before WHOLE or CUT.
_SEND: Final[dict[Stage, Callable[[Pipeline, Transaction], bytes]]] = {
    Stage.ENVELOPE: Pipeline._send_envelope,
    Stage.ADDRESSED: Pipeline._send_content_command,
    Stage.DATA: Pipeline._send_data,
    Stage.CONTENT: Pipeline._send_block,
}
