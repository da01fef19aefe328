"""
The first phase of a session: the handshake, on a transport.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import ITLSTransport
from twisted.python.failure import Failure

from ..errors import ConnectionLost, DeliveryError, ProtocolError, Refused, ResponseTimeout, TLSFailed
from ..smtp.handshake import Action, Handshake, State
from ..smtp.policy import Timeouts
from ..smtp.reply import Reply, ReplyParser
from .chronicle import Chronicle
from .tls import ServerTLS
from .watch import Watch


class Opening:
    """
    Moves what a handshake says and hears.

    :param handshake: decides.
    :param transport: the session's.
    :param parser: what the replies came from.
    :param watch: the session's timer.
    :param timeouts: seconds for each reply.
    :param context: makes the connection's TLS; None where it has none.
    :param chronicle: is told what happens.
    """

    def __init__(
        self,
        handshake: Handshake,
        transport: Any,
        parser: ReplyParser,
        watch: Watch,
        timeouts: Timeouts,
        context: Any,
        chronicle: Chronicle,
    ) -> None:
        self.handshake = handshake
        self._transport = transport
        self._parser = parser
        self._watch = watch
        self._timeouts = timeouts
        self._context = context
        self._chronicle = chronicle
        self._tls_pending = False
        self._unjudged = False

    def begin(self, *, start_tls: bool, has_tls: bool) -> None:
        """
        Wait for the greeting, or start TLS first.

        :param has_tls: whether the transport came with TLS of its own.
        :raises TLSFailed: TLS cannot be started here.
        """
        self._unjudged = has_tls
        self._chronicle.enter("session")
        if start_tls:
            self._start_tls()
        self._expect()

    def take(self, replies: list[Reply]) -> bool:
        """
        Take what was read.

        :returns: whether the handshake is done.
        :raises DeliveryError: it has failed.
        """
        if replies:
            if self._unjudged:
                # Its handshake was over before it was given to us.
                self._judge()
            command = self.handshake.command
            self._chronicle.heard(replies[0], self.handshake)
            step = self.handshake.receive(replies[0])
            if len(replies) > 1 or self._parser.pending or self._parser.error is not None:
                # It was read before the command that it seems to answer was
                # written; behind STARTTLS, somebody wants it believed (RFC
                # 3207 section 6, CVE-2011-0411).
                raise self._too_early(command, replies[1:])
            if step is Action.READY:
                self._chronicle.enter(None)
                return True
            if step is Action.START_TLS:
                self._start_tls()
            else:
                self._say(step)
            self._expect()
        if self._parser.error is not None:
            raise self._parser.error
        return False

    def tls_completed(self) -> None:
        """
        TLS is on; the certificate is judged before anything is said.

        :raises TLSFailed: it must verify and does not.
        """
        self._tls_pending = False
        self._chronicle.enter("session")
        self._judge()
        if self.handshake.state is State.TLS:
            self._say(self.handshake.tls_established())
        self._expect()

    def overdue(self) -> DeliveryError:
        """What it means that the timer ran out."""
        if self.handshake.fault is not None:
            return self.handshake.fault
        what = "the TLS handshake was not complete" if self._tls_pending else self._no_reply()
        return ResponseTimeout(f"{what} within {self._bound():g} s")

    def loss(self, reason: Failure) -> DeliveryError:
        """What it means that the connection was lost for ``reason``."""
        if self.handshake.fault is not None:
            # Whether it says 501 to the "*" or just goes, it was at fault before.
            return self.handshake.fault
        cause = reason.getErrorMessage()
        if not self._tls_pending and not self._failed_tls_of_the_transport(reason):
            return ConnectionLost(f"connection lost, {self._no_reply()}: {cause}")
        if reason.check(ConnectionClosed):
            return ConnectionLost(f"connection lost in the TLS handshake: {cause}")
        certificate = self._context.failure if isinstance(self._context, ServerTLS) else None
        if certificate is not None:
            return TLSFailed(f"the server's certificate does not verify: {certificate}")
        return TLSFailed(f"the TLS handshake failed: {cause}")

    def _failed_tls_of_the_transport(self, reason: Failure) -> bool:
        """Its handshake is under way until the first octet has come, and may fail behind that."""
        waits = self._unjudged and self.handshake.state is State.GREETING
        return bool(reason.check(VerificationError) or (waits and reason.check(SSL.Error)))

    def _judge(self) -> None:
        self._unjudged = False
        if isinstance(self._context, ServerTLS):
            self._context.judge(self._transport.getHandle())

    def _say(self, command: bytes) -> None:
        self._transport.write(command)
        self._chronicle.said(command, self.handshake)

    def _no_reply(self) -> str:
        command = self.handshake.command
        return "no greeting" if self.handshake.state is State.GREETING else f"no reply to {command}"

    def _bound(self) -> float:
        if self.handshake.fault is not None:
            # There is nothing to be had of it but an end in order.
            return self._timeouts.quit
        greeting = self.handshake.state is State.GREETING
        return self._timeouts.greeting if greeting else self._timeouts.other

    def _expect(self) -> None:
        self._watch.expect(self._bound())

    def _too_early(self, command: str, replies: list[Reply]) -> DeliveryError:
        if self.handshake.fault is not None:
            return self.handshake.fault
        if replies and replies[0].code == 421 and self.handshake.state is not State.TLS:
            return Refused(command, 421, replies[0].text)
        if not replies and self._parser.error is not None:
            return self._parser.error
        said = repr(replies[0].text) if replies else "the start of one"
        return ProtocolError(f"a reply before its command was written: {said}")

    def _start_tls(self) -> None:
        if self._context is None or not ITLSTransport.providedBy(self._transport):
            raise TLSFailed("this transport cannot start TLS")
        self._tls_pending = True
        self._chronicle.enter("tls")
        try:
            self._transport.startTLS(self._context)
        except SSL.Error as error:
            raise TLSFailed(f"TLS could not be started: {error}") from error
