"""
Fills in the trace of one delivery as it goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from ..smtp.reply import Reply
from ..smtp.trace import Trace
from ..smtp.transaction import Transaction
from .chronicle import Chronicle
from .protocol import PipeliningESMTPClient


class Tracing:
    """
    Watches one delivery, from one transaction to the next.

    :param trace: what is filled in.
    :param seconds: tells the time.
    """

    def __init__(self, trace: Trace, seconds: Callable[[], float]) -> None:
        self._trace = trace
        self._seconds = seconds
        self._begun = self._since = seconds()
        self._transaction: Transaction | None = None
        self._answered: float | None = None
        self._waiting = False
        self._content_begun = False

    # What the agent tells.

    def assigned(self, session: PipeliningESMTPClient, transaction: Transaction) -> None:
        """The mail goes on this session, in this transaction."""
        trace = self._trace
        trace.reused = session.chronicle.ready_before(self._since)
        self._waited_for(session.chronicle)
        self.goes_by(session)
        self._transaction = transaction
        self._answered = None
        self._waiting = self._content_begun = False
        transaction.witness = self

    def goes_by(self, session: PipeliningESMTPClient) -> None:
        """What is told of the session itself."""
        self._trace.pipelined = session.uses("PIPELINING")
        self._trace.chunking = session.uses("CHUNKING")
        self._trace.tls_version = session.tls_version

    def left(self) -> None:
        """The transaction is over; another may follow."""
        now = self._seconds()
        if self._transaction is not None:
            self._transaction.witness = None
            self._transaction = None
            answered = now if self._answered is None else self._answered
            self._trace.envelope += answered - self._since
            self._trace.content += now - answered
        self._since = now

    def waited_for(self, chronicle: Chronicle | None) -> None:
        """A session came to be, or did not; None where none was begun."""
        if chronicle is not None:
            self._waited_for(chronicle)

    def ended(self) -> None:
        """The delivery has its outcome."""
        if self._transaction is not None:
            self.left()
        now = self._seconds()
        self._trace.queued += now - self._since
        self._trace.total = now - self._begun

    # What the pipeline tells.

    def said(self, commands: bytes) -> None:
        """Commands of the mail are written."""
        self._wrote()
        if self._trace.transcript is not None:
            self._trace.transcript.said(commands)

    def sent(self, octets: int) -> None:
        """Content of the mail is written, of which the rest waits for nothing."""
        if not self._content_begun:
            self._content_begun = True
            self._wrote()
        if self._trace.transcript is not None:
            self._trace.transcript.sent(octets)

    def heard(self, reply: Reply) -> None:
        """The server answers; the transaction has taken it."""
        self._waiting = False
        if self._answered is None and self._transaction is not None and self._transaction.envelope_answered:
            self._answered = self._seconds()
        if self._trace.transcript is not None:
            self._trace.transcript.heard(reply)

    def _wrote(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._trace.flights += 1

    def _waited_for(self, chronicle: Chronicle) -> None:
        now = self._seconds()
        trace = self._trace
        phases = chronicle.within(self._since, now)
        trace.connect += phases.get("connect", 0.0)
        trace.tls += phases.get("tls", 0.0)
        trace.session += phases.get("session", 0.0)
        trace.queued += max(0.0, now - self._since - sum(phases.values()))
        if trace.transcript is not None:
            trace.transcript.extend(chronicle.transcript)
        self._since = now
