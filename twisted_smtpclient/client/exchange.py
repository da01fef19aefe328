"""
The second phase of a session: its mails, on a transport.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import ConnectionLost, DeliveryError, InternalError, ProtocolError, ResponseTimeout
from ..smtp.limits import Limits
from ..smtp.pipeline import End, Pipeline
from ..smtp.policy import Timeouts
from ..smtp.redaction import Redaction
from ..smtp.reply import Reply, ReplyParser
from ..smtp.sender import WRITE
from ..smtp.steps import Command
from ..smtp.transaction import Transaction
from .departure import AT_ONCE, Departure, write_at_once, writes_at_once
from .watch import Watch

_ROOM: Final = Command("", "data_block", "the server took nothing more")

_log = Logger(__name__)

#: Seconds in which a server that said 421 may answer what it was sent before.
LINGER: Final = 5.0


class Exchange:
    """
    Moves what a pipeline says and hears, and tells outcomes.

    :param session: whose it is.
    :param pipeline: decides.
    :param transport: the session's; it is given this as its producer.
    :param watch: the session's timer.
    :param timeouts: seconds for each reply.
    :param on_end: told when the connection is to end, and how.
    :param guard: calls what a user called, and takes what it raises.
    :param on_fault: is given what was raised for what was read, or in a turn.
    :param parser: the session's.
    :param redaction: what the server may have been told that no error is to tell.
    :param departure: calls turns, and writes, for others too.
    :param limits: what the server takes in one transaction and on one
        connection.
    :param idle_timeout: seconds after which the watch runs out where nothing
        is under way; None for never.
    It is also what a pool has of a session: what is asked for each mail is asked
    here, where it costs nothing.

    :ivar capacity: how many mails may be under way at a time.
    :ivar submitted: how many it was given.
    :ivar flights: how often something was written, all that there was to say.
    :ivar octets_sent: how many octets that was.
    :ivar octets_received: how many the server has said here.
    """

    def __init__(
        self,
        session: Any,
        pipeline: Pipeline,
        transport: Any,
        watch: Watch,
        timeouts: Timeouts,
        on_end: Callable[[End], None],
        guard: Callable[[Callable[[], object]], None],
        on_fault: Callable[[Exception], None],
        parser: ReplyParser,
        redaction: Redaction | None,
        departure: Departure,
        *,
        capacity: int,
        limits: Limits,
        idle_timeout: float | None = None,
    ) -> None:
        self.session = session
        self.pipeline = pipeline
        self.capacity = capacity
        self.limits = limits
        self.submitted = 0
        self._transport = transport
        self._departure = departure
        self._leaves_at_once = writes_at_once(transport)
        # Of many mails that are answered together the more the better.
        if self._leaves_at_once and not pipeline.chunked:
            departure.watch(transport)
        #: what leaves with the departure, and how many octets that is
        self._leaving: list[bytes] = []
        self._octets_leaving = 0
        self._watch = watch
        self._timeouts = timeouts
        self._on_end = on_end
        self._guard = guard
        self._on_fault = on_fault
        self._parser = parser
        self._redaction = redaction
        self._idle_timeout = idle_timeout
        self.flights = self.octets_sent = self.octets_received = 0
        # Not None, for at first the handshake's bound is still running.
        self._awaiting: Command | None = _ROOM
        self._lingering = False
        self._paused = False
        self._in_turn = False
        self._turn_is_due = False
        #: whether what is written next goes on with what a full transport cut short
        self._flight_goes_on = False

    @property
    def accepts(self) -> bool:
        """Whether the session takes a further mail."""
        return self.pipeline.accepts

    def finish(self) -> None:
        """Take no further mail, and close behind those under way."""
        self.session.finish()

    def when_gone(self) -> Deferred[None]:
        """Fires when the connection has ended."""
        gone: Deferred[None] = self.session.when_gone()
        return gone

    def submit(self, transaction: Transaction) -> None:
        """
        Give the pipeline a mail, to be written in a moment: all that is given
        until then goes in one write.
        """
        self.submitted += 1
        if self.pipeline.accepts:
            self._queue(transaction)
        else:
            # It was chosen for this session before the session's last mail was.
            transaction.outcome = ConnectionLost("the session takes no further mail")
            transaction.untouched = True
            self.pipeline.finished.append(transaction)
        if not (self._turn_is_due or self._in_turn):
            self.call_turn()

    def _queue(self, transaction: Transaction) -> None:
        try:
            self.pipeline.submit(transaction)
        except Exception as error:
            if not isinstance(error, DeliveryError):
                # It may be one of many that are given at once.
                _log.failure("a fault with a mail that was given")
                error = InternalError("a fault of the client; its log has the traceback")
            transaction.outcome = error
            # Told in a moment too: who is told may give the next, which may be
            # no better, and so on for as many as wait.
            self.pipeline.finished.append(transaction)

    def cancel(self, transaction: Transaction, error: DeliveryError) -> None:
        """Settle one mail with ``error`` now; its neighbors go on."""
        self.pipeline.cancel(transaction, error)
        if transaction.outcome is not None:
            # At once, also where who is told of one mail cancels another.
            tell(transaction)
        self._guard(self.turn)

    def received(self, data: bytes) -> None:
        """The transport has read something; what goes wrong with it ends the session."""
        self.octets_received += len(data)
        try:
            self._take(self._parser.feed(data))
        except Exception as error:
            self._on_fault(error)

    def _take(self, replies: list[Reply]) -> None:
        pipeline, parser, redaction = self.pipeline, self._parser, self._redaction
        if redaction is not None:
            replies = redaction.clean(replies)
            if parser.error is not None:
                parser.error = redaction.blunt(parser.error)
        pipeline.take(replies)
        if parser.error is not None:
            pipeline.fail(parser.error)
        elif parser.pending and pipeline.awaiting is None:
            pipeline.fail(ProtocolError("the start of a reply that nobody asked for"))
        self.turn(heard=bool(replies))

    def pause(self) -> None:
        """The transport takes nothing more for now."""
        self._paused = True

    def resume(self) -> None:
        """The transport takes more."""
        self._paused = False
        self.turn()

    def call_turn(self) -> None:
        """Have a turn soon, once however often this is called."""
        if not self._turn_is_due and not self._in_turn:
            self._turn_is_due = True
            self._departure.call_turn(self)

    def turn(self, *, heard: bool = False) -> None:
        """After whatever has happened: outcomes, octets, the timer, the end."""
        if self._in_turn:
            return
        pipeline = self.pipeline
        self._in_turn = True
        try:
            self.tell()
            wrote = self._write()
            # What can be written may settle a mail as well: with nobody left
            # to send to, the sender cuts it short.
            while pipeline.finished:
                self.tell()
                wrote = self._write() or wrote
        finally:
            self._in_turn = False
        self._keep_time(heard=heard, wrote=wrote)
        if pipeline.end in (End.CLOSE, End.ABORT):
            self._on_end(pipeline.end)

    def _write(self) -> bool:
        size = 0
        before = self._octets_leaving
        while not self._paused:
            leaves = self._leaves_at_once and before + size < AT_ONCE
            if not leaves:
                # What is to leave goes ahead, and may be all that is wanted for now.
                if not self._write_leaving():
                    break
            elif not self._leaving:
                self.pipeline.hold()
            octets = self.pipeline.output()
            if not octets:
                break
            if leaves:
                self._leave_with(octets)
            else:
                self._transport.write(octets)
            size += len(octets)
            if len(octets) < WRITE:
                # There was no more.
                break
        wrote = size > 0
        if wrote:
            self.octets_sent += size
            if not self._flight_goes_on:
                self.flights += 1
            self._flight_goes_on = self._paused
        return wrote

    def _leave_with(self, octets: bytes) -> None:
        if not self._leaving:
            self._departure.add(self)
        self._leaving.append(octets)
        self._octets_leaving += len(octets)

    def depart(self) -> None:
        """
        Write what was to leave.

        Where that goes wrong the session ends: what it says next would stand
        where the server expects what is missing.
        """
        try:
            self._write_leaving()
        except Exception as error:
            self._on_fault(error)

    def _write_leaving(self) -> bool:
        """Ahead of what is written from now on; whether more is wanted then."""
        leaving, self._leaving, self._octets_leaving = self._leaving, [], 0
        # What was given up is not to reach the server, nor is anything behind a
        # 421: its mails are told that they were not done, and go elsewhere.
        if self.pipeline.end is not End.OPEN:
            return False
        self.pipeline.release()
        if leaving:
            write_at_once(self._transport, leaving[0] if len(leaving) == 1 else b"".join(leaving))
        return not self._paused

    def tell(self) -> None:
        """Tell outcomes; who is told may give further mails at once."""
        while self.pipeline.finished:
            for transaction in self.pipeline.take_finished():
                tell(transaction)

    def overdue(self) -> None:
        """What was waited for has not come in time."""
        if self._lingering or self._awaiting is None:
            self.pipeline.lost(ConnectionLost("the server said 421 and did not close the connection"))
        else:
            seconds = getattr(self._timeouts, self._awaiting.timeout)
            self.pipeline.fail(ResponseTimeout(f"{self._awaiting.phrase} within {seconds:g} s"))
        self.turn()

    def loss(self, reason: Failure) -> DeliveryError:
        """What it means that the connection was lost for ``reason``."""
        awaiting = self.pipeline.awaiting
        what = f", {awaiting.phrase}" if awaiting is not None else " while it was idle"
        return ConnectionLost(f"connection lost{what}: {reason.getErrorMessage()}")

    def take_turn(self) -> None:
        """What was given until now is written; what goes wrong with it ends the session."""
        self._turn_is_due = False
        try:
            if self.pipeline.end in (End.OPEN, End.LINGER):
                self.turn()
            else:
                self.tell()
        except Exception as error:
            self._on_fault(error)

    def _keep_time(self, *, heard: bool, wrote: bool) -> None:
        pipeline = self.pipeline
        if pipeline.end is End.LINGER:
            if not self._lingering:
                self._lingering = True
                self._watch.expect(min(LINGER, self._timeouts.other))
            return
        awaiting = pipeline.awaiting
        if awaiting is None and self._paused:
            # The server has answered what it did not read yet, and what
            # comes next, be it QUIT, cannot be written.
            awaiting = _ROOM
        if awaiting is None:
            if self._idle_timeout is None:
                self._watch.rest()
            elif heard or self._awaiting is not None:
                self._watch.expect(self._idle_timeout)
            pipeline.rest()
        elif heard or awaiting is not self._awaiting or (wrote and awaiting.timeout == "data_block"):
            # A reply, or octets that the transport took, is progress; a part
            # of a reply is not.
            self._watch.expect(getattr(self._timeouts, awaiting.timeout))
        self._awaiting = awaiting


def tell(transaction: Transaction) -> None:
    """Tell a mail's outcome, once; what he raises who is told harms no other mail."""
    on_settled, transaction.on_settled = transaction.on_settled, None
    if on_settled is not None:
        try:
            on_settled(transaction)
        except Exception:
            _log.failure("on_settled failed")
