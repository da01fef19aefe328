"""
What may be written now: the sender's side of a connection's transactions.

Only the last transaction begun may have octets left to write.  With
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
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from .steps import Awaited, Stage
from .transaction import Transaction

#: Octets for one write, where more is ready.  The sender stops here so that
#: the transport can say that it is full; what it holds of ours then is this
#: and one small content.
WRITE: Final = 65536

#: RCPT commands that are joined at a time: at most 512 octets each without
#: parameters, so 64 KiB.
_RCPT_BATCH: Final = 128

_END_OF_DATA: Final = b".\r\n"


class Sender:
    """
    Writes transactions, one behind the other.

    :param outstanding: the transactions that were begun and are not heard
        out, the oldest first; the sender adds to it, the receiver takes away.
    :param grouped: whether commands may be sent in groups (PIPELINING).
    :param chunked: whether contents go by BDAT (CHUNKING).
    :param depth: how many transactions may be outstanding.
    :ivar queue: transactions that are not begun.
    :ivar begun: how many were begun.
    :ivar needs_rset: whether the next MAIL is to have RSET before it.
    :ivar last: the last one begun, until it is heard out.
    :ivar writing: the one that has octets left to write.
    :ivar cut: one that was just ended in writing, with no content and nobody
        to send it to; nothing is written until the receiver has seen to it.
    :ivar finishing: whether QUIT goes behind the last.
    :ivar quit_written: whether it has gone.
    :ivar stopped: whether nothing more is written at all.
    :ivar dead_end: whether the one that was cut leaves nothing to write behind it.
    """

    def __init__(self, outstanding: deque[Transaction], *, grouped: bool, chunked: bool, depth: int) -> None:
        self.grouped = grouped
        self.chunked = chunked
        self.queue: deque[Transaction] = deque()
        self.begun = 0
        self.needs_rset = False
        self.last: Transaction | None = None
        self.writing: Transaction | None = None
        self.cut: Transaction | None = None
        self.finishing = False
        self.quit_written = False
        self.stopped = False
        self.dead_end = False
        self._outstanding = outstanding
        self._depth = depth if grouped else 1
        self._eager = True
        #: of a large content: the block that is next, and those behind it
        self._block = b""
        self._blocks: Iterator[bytes] = iter(())

    def rest(self) -> None:
        """The connection is idle until the next transaction."""
        self._eager = False

    def stop(self) -> None:
        """Write nothing more."""
        self.stopped = True
        self.writing = None
        self._block, self._blocks = b"", iter(())

    def heard_out(self, transaction: Transaction, *, ended_well: bool) -> None:
        """
        A transaction has all its replies.

        :param ended_well: whether it ended with a 2xx to its content.
        """
        if transaction is self.writing:
            self.writing = None
        if transaction is self.last:
            self.last = None
            self.needs_rset = not ended_well

    def output(self) -> bytes:
        """What may be written now, about :data:`WRITE` octets of it at the most."""
        pieces: list[bytes] = []
        size = 0
        while size < WRITE and not self.stopped and self.cut is None:
            transaction = self.writing
            piece = self._begin() if transaction is None else _SEND[transaction.stage](self, transaction)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def cut_short(self, transaction: Transaction) -> bytes:
        """Write nothing more of this one; the next goes on behind it."""
        transaction.stage = Stage.CUT
        self.writing = None
        self.cut = transaction
        return b""

    def _begin(self) -> bytes:
        """The start of the next transaction, or QUIT behind the last."""
        if not self.queue:
            return self._quit()
        if len(self._outstanding) >= self._depth:
            return b""
        transaction = self.queue.popleft()
        rset, self.needs_rset = self.needs_rset, True
        self._outstanding.append(transaction)
        self.last = transaction
        if not self.begun:
            transaction.first = True
        transaction.number = self.begun
        self.begun += 1
        if self.grouped:
            transaction.grouped = True
        if rset:
            transaction.awaited = Awaited.RSET
        # In one group goes what need wait for nothing up to 354, or to the end
        # of the content.
        if self.chunked:
            transaction.chunked = True
            waits = not (self._eager and transaction.content.small)
        else:
            waits = False
        count = len(transaction.envelope.recipients)
        if waits or count > _RCPT_BATCH or not self.grouped or transaction.lmtp:
            self.writing = transaction
            transaction.stage = Stage.ENVELOPE
            if not rset:
                return transaction.mail_written()
            transaction.owed = 1
            if transaction.witness is not None:
                transaction.witness.said(b"RSET\r\n")
            return b"RSET\r\n"
        return self._send_group(transaction, count, rset)

    def _send_group(self, transaction: Transaction, count: int, rset: bool) -> bytes:
        """
        All of the envelope and the command behind it, with the content where
        it is chunked, in one piece: what most mails are.
        """
        recipients = transaction.envelope.recipients
        rcpts = recipients[0].command if count == 1 else b"".join([entry.command for entry in recipients])
        begin = b"RSET\r\n" + transaction.mail if rset else transaction.mail
        transaction.mail = b""
        transaction.rcpts_written = count
        transaction.owed = count + 3 if rset else count + 2
        witness = transaction.witness
        # A witness hears each reply, so they are taken one by one.
        transaction.smooth = witness is None
        if self.chunked:
            content = transaction.content
            transaction.stage = Stage.WHOLE
            if witness is not None:
                witness.said(b"%b%bBDAT %d LAST\r\n" % (begin, rcpts, content.size))
                witness.sent(content.size)
            return b"%b%bBDAT %d LAST\r\n%b" % (begin, rcpts, content.size, content.for_bdat())
        self.writing = transaction
        transaction.stage = Stage.DATA
        commands = begin + rcpts + b"DATA\r\n"
        if witness is not None:
            witness.said(commands)
        return commands

    def _quit(self) -> bytes:
        if not self.finishing or self.quit_written or (self._outstanding and not self.grouped):
            return b""
        self.quit_written = True
        return b"QUIT\r\n"

    def _send_envelope(self, transaction: Transaction) -> bytes:
        if transaction.owed and not self.grouped:
            return b""
        if transaction.hopeless:
            return self.cut_short(transaction)
        if transaction.mail:
            return transaction.mail_written()
        recipients = transaction.envelope.recipients
        start = transaction.rcpts_written
        batch = recipients[start : start + (_RCPT_BATCH if self.grouped else 1)]
        transaction.rcpts_written += len(batch)
        transaction.owed += len(batch)
        if transaction.rcpts_written == len(recipients):
            transaction.stage = Stage.ADDRESSED
        commands = b"".join([entry.command for entry in batch])
        if transaction.witness is not None:
            transaction.witness.said(commands)
        return commands

    def _send_content_command(self, transaction: Transaction) -> bytes:
        if transaction.owed and self._must_wait(transaction):
            return b""
        if transaction.hopeless:
            return self.cut_short(transaction)
        content, witness = transaction.content, transaction.witness
        command = b"BDAT %d LAST\r\n" % content.size if self.chunked else b"DATA\r\n"
        if witness is not None:
            witness.said(command)
        if not self.chunked:
            transaction.stage = Stage.DATA
            transaction.owed += 1
            return command
        if content.small:
            octets = content.for_bdat()
            self._content_written(transaction, octets)
            return command + octets
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
        if not transaction.smooth and transaction.hopeless:
            return self._lone_dot(transaction)
        content = transaction.content
        if content.small:
            octets = content.for_data()
            self._content_written(transaction, octets)
            return octets
        self._content_begun(transaction, content.data_blocks())
        return self._send_block(transaction)

    def _lone_dot(self, transaction: Transaction) -> bytes:
        if transaction.lmtp:
            # No reply is owed for it, so none would tell where it ends.
            self.dead_end = True
            return self.cut_short(transaction)
        self.writing = None
        if transaction.witness is not None:
            transaction.witness.said(_END_OF_DATA)
        transaction.content_written()
        return _END_OF_DATA

    def _content_begun(self, transaction: Transaction, blocks: Iterator[bytes]) -> None:
        transaction.stage = Stage.CONTENT
        self._blocks = blocks
        self._block = next(blocks)

    def _send_block(self, transaction: Transaction) -> bytes:
        # One block ahead: with its last octet a content is whole, and not
        # when the transport asks for more.
        block, self._block = self._block, next(self._blocks, b"")
        if not self._block:
            self._content_written(transaction, block)
        elif transaction.witness is not None:
            transaction.witness.sent(len(block))
        return block

    def _content_written(self, transaction: Transaction, octets: bytes) -> None:
        """All of it is written, with ``octets`` as the last of it."""
        if (witness := transaction.witness) is not None:
            witness.sent(len(octets) if self.chunked else len(octets) - len(_END_OF_DATA))
            if not self.chunked:
                witness.said(_END_OF_DATA)
        transaction.content_written()
        self.writing = None
        self._eager = True


#: What is written of ``writing``, which is past QUEUED and before WHOLE or CUT.
_SEND: Final[dict[Stage, Callable[[Sender, Transaction], bytes]]] = {
    Stage.ENVELOPE: Sender._send_envelope,
    Stage.ADDRESSED: Sender._send_content_command,
    Stage.DATA: Sender._send_data,
    Stage.CONTENT: Sender._send_block,
}
