"""The embedded sink: a server that takes mail, remembers it, and misbehaves when told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from .accounts import Accounts
from .channel import BINDINGS
from .factory import ImplicitTLSFactory, SinkFactory
from .faults import Fault, FaultPlan, Stage
from .protocol import SinkProtocol
from .records import Mail, Session
from .replies import ByAddress, Settings, keywords_of

__all__ = ["Sink"]

_log = Logger(__name__)

#: Octets of a command line.  RFC 5321 4.5.3.1.4 asks for 512 without extensions, and their
#: parameters add to it (DSN's ORCPT alone 500); this is Postfix's limit.
MAX_LINE: Final = 2048

#: What the sink refuses unless told otherwise: the demo's refused recipient.
REFUSED: Mapping[str, str] = {
    "invalid@invalid.de": "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"
}


class Sink:
    """
    An SMTP or LMTP server for tests, demonstrations and documentation.

    It answers all the commands of one read with one write, as a pipelining
    server should, is strict in what it records (:attr:`violations`) and says
    what it is told to say.  It keeps everything it got in memory; for one that
    runs for long give ``keep_records=False`` and ``on_mail``.

    Replies are texts such as ``"550 5.1.1 No such user"``; the lines of a
    multi-line one are joined by LF, each with its code.  One with a 2 in front
    accepts.

    :param reactor: for all timers (a ``Clock`` will do), and to listen.
    :param name: the server's name in its greeting.
    :param lmtp: speak LMTP (RFC 2033): LHLO, one final reply for each accepted
        recipient.
    :param esmtp: False: EHLO is answered 502.
    :param pipelining: offer PIPELINING; likewise ``chunking``,
        ``eightbitmime``, ``smtputf8``, ``dsn``, ``binarymime``,
        ``requiretls`` (under TLS only, as RFC 8689 has it) and
        ``enhanced_status_codes`` (without which the sink's own replies bear
        none either).
    :param size: octets that a mail may have, offered with SIZE; None: SIZE is
        not offered, and there is no limit; 0: offered without a limit.
    :param extensions: further lines of the EHLO reply, such as
        ``"DELIVERBY 240"``, ``"FUTURERELEASE 86400 2030-01-01T00:00:00Z"``,
        ``"MT-PRIORITY MIXER"`` or ``"LIMITS RCPTMAX=10"``.  Parameters of
        theirs are accepted, those of these four judged by their RFCs.  A
        parameter whose extension is not offered is a violation, answered 555.
    :param starttls: a server's ``IOpenSSLServerConnectionCreator`` or context
        factory, such as :meth:`Certificates.server_context`; STARTTLS is
        offered.
    :param implicit_tls: the same, for TLS from the first octet.
    :param users: passwords by name; with them AUTH (RFC 4954) is offered.
    :param tokens: OAuth 2 tokens by name, likewise.
    :param mechanisms: the SASL mechanisms to offer, in this order; None: all
        that there is something for.  Those with ``-PLUS`` are offered under
        TLS only, and EXTERNAL where the client has shown a certificate (see
        :meth:`Certificates.server_context`), whose common name it logs in.
    :param mechanisms_in_clear: those to offer without TLS; None: the same
        ones; empty: AUTH is not offered before TLS.
    :param refuse_mechanism: replies to AUTH by mechanism, though it is
        offered, such as ``{"CRAM-MD5": "534 5.7.9 Too weak"}``.
    :param channel_bindings: what the mechanisms with ``-PLUS`` may be bound to.
    :param require_login: where AUTH is known, MAIL is answered 530 before it.
    :param refuse: replies to RCPT by address (exactly as sent): a mapping, or
        a callable that returns None to accept.
    :param refuse_sender: likewise for MAIL.
    :param final_reply: the final reply to every mail, or a callable that is
        given the :class:`Mail` (None: accept).
    :param final_replies: LMTP: final replies by recipient, before
        ``final_reply``.
    :param max_recipients: more are answered 452 4.5.3.
    :param max_line: octets that a command line may have, CRLF included.
    :param faults: see :class:`Fault`; ``sink.faults`` may be changed later.
    :param delay: seconds for which each batch of replies is held back, from
        its own arrival on, like a round trip.
    :param split: replies are written in pieces of so many octets, each in a
        reactor turn of its own.
    :param keep_content: False: mails come with their size only.
    :param keep_transcript: fill :attr:`Session.transcript`.
    :param keep_records: False: mails and sessions are forgotten once
        ``on_mail`` and ``on_session`` were called, and commands at once.
    :param on_mail: called with each mail when its content is in and its final
        reply is decided.  What it raises is logged.
    :param on_session: called with each session when it has ended.

    :ivar mails: in the order of their ends; see :class:`Mail`.  A mail that
        had a refusal as its final reply is among them (``mail.accepted``).
    :ivar sessions: in the order of their beginnings.
    :ivar mail_count: mails that came in, kept or not; ``session_count``:
        connections.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        name: str = "sink.invalid",
        lmtp: bool = False,
        esmtp: bool = True,
        pipelining: bool = True,
        chunking: bool = True,
        binarymime: bool = False,
        size: int | None = 10_485_760,
        eightbitmime: bool = True,
        smtputf8: bool = True,
        dsn: bool = True,
        enhanced_status_codes: bool = True,
        extensions: Sequence[str] = (),
        starttls: Any = None,
        implicit_tls: Any = None,
        requiretls: bool = False,
        users: Mapping[str, str] = MappingProxyType({}),
        tokens: Mapping[str, str] = MappingProxyType({}),
        mechanisms: Sequence[str] | None = None,
        mechanisms_in_clear: Sequence[str] | None = None,
        refuse_mechanism: Mapping[str, str] = MappingProxyType({}),
        channel_bindings: Sequence[str] = tuple(BINDINGS),
        require_login: bool = True,
        refuse: ByAddress = REFUSED,
        refuse_sender: ByAddress = MappingProxyType({}),
        final_reply: str | Callable[[Mail], str | None] | None = None,
        final_replies: Mapping[str, str] = MappingProxyType({}),
        max_recipients: int | None = None,
        max_line: int = MAX_LINE,
        faults: Sequence[Fault] = (),
        delay: float = 0.0,
        split: int | None = None,
        keep_content: bool = True,
        keep_transcript: bool = False,
        keep_records: bool = True,
        on_mail: Callable[[Mail], None] | None = None,
        on_session: Callable[[Session], None] | None = None,
    ) -> None:
        self.reactor = reactor
        self.delay = delay
        self.split = split
        self.plan = FaultPlan(faults)
        self.settings = Settings(
            name=name,
            lmtp=lmtp,
            esmtp=esmtp,
            keywords=keywords_of(
                pipelining=pipelining,
                chunking=chunking,
                binarymime=binarymime,
                size=size,
                eightbitmime=eightbitmime,
                smtputf8=smtputf8,
                dsn=dsn,
                enhanced_status_codes=enhanced_status_codes,
                extensions=extensions,
            ),
            starttls=starttls,
            accounts=Accounts.of(
                users,
                tokens,
                mechanisms,
                mechanisms_in_clear,
                refused=refuse_mechanism,
                bindings=channel_bindings,
                required=require_login,
            ),
            requiretls=requiretls,
            size=size,
            enhanced_status_codes=enhanced_status_codes,
            refuse=refuse,
            refuse_sender=refuse_sender,
            final_reply=final_reply,
            final_replies=final_replies,
            max_recipients=max_recipients,
            max_line=max_line,
            keep_content=keep_content,
            keep_transcript=keep_transcript,
            keep_records=keep_records,
        )
        self.on_mail = on_mail
        self.on_session = on_session
        self.mails: list[Mail] = []
        self.sessions: list[Session] = []
        self.mail_count = self.session_count = 0
        #: For in-memory transports: sessions of its protocols are recorded like any other.
        self.factory: IProtocolFactory = self._factory_for(implicit_tls, awaited=False)
        self._listening: IProtocolFactory = self._factory_for(implicit_tls, awaited=True)
        self._ports: list[IListeningPort] = []
        self._open: dict[SinkProtocol, None] = {}
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self._handed_out = 0
        self._last_lost: Deferred[None] | None = None

    # Records.

    @property
    def faults(self) -> list[Fault]:
        """The script; see :class:`Fault`."""
        return self.plan.faults

    @property
    def commands(self) -> list[bytes]:
        """Of all sessions, one session after another."""
        return [command for session in self.sessions for command in session.commands]

    @property
    def violations(self) -> list[str]:
        """Of all sessions; empty for a client that keeps to the RFCs."""
        return [violation for session in self.sessions for violation in session.violations]

    @property
    def flights(self) -> int:
        """Of all sessions; see :class:`Session`."""
        return sum(session.flights for session in self.sessions)

    @property
    def open_sessions(self) -> list[Session]:
        """Those whose connection is open."""
        return [protocol.session for protocol in self._open]

    def wait_for(self, mails: int, timeout: float = 30.0) -> Deferred[list[Mail]]:
        """
        Until so many mails have come in since the sink was made.

        :param timeout: seconds.
        :returns: a Deferred of the mails kept so far, which may be cancelled;
            it fires when the replies of that read have been written.
            ``TimeoutError`` (Twisted's) is its error after the timeout,
            ``CancelledError`` when the sink is stopped.
        """
        waiting: Deferred[None] = Deferred(self._forget_waiting)
        if self.mail_count >= mails:
            waiting.callback(None)
        else:
            self._waiting.append((mails, waiting))
            waiting.addTimeout(timeout, self.reactor)
        return waiting.addCallback(lambda _: self.mails)

    def mail(self, timeout: float = 30.0) -> Deferred[Mail]:
        """The first mail; called again, the second, and so on.  Otherwise as :meth:`wait_for`."""
        self._handed_out += 1
        number = self._handed_out
        return self.wait_for(number, timeout).addCallback(lambda mails: mails[number - 1])

    # Connections.

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        """A protocol for one more connection, to be put on any transport."""
        return self.factory.buildProtocol(addr)  # type: ignore[arg-type]  # in-memory transports have no address

    async def listen(
        self, endpoint: str | IStreamServerEndpoint = "tcp:0:interface=127.0.0.1"
    ) -> IListeningPort:
        """
        Listen on a server endpoint, or on Twisted's string for one (``"unix:/run/lmtp"``); on more than
        one, if asked again.
        """
        server = serverFromString(self.reactor, endpoint) if isinstance(endpoint, str) else endpoint
        listening: Deferred[IListeningPort] = server.listen(self._listening)
        port = await listening
        self._ports.append(port)
        return port

    @property
    def address(self) -> Any:
        """Where the first listening port is: Twisted's address (``host`` and ``port``, or ``name``)."""
        return self._ports[0].getHost()

    @property
    def port(self) -> int:
        """The number of the first listening port."""
        number: int = self.address.port
        return number

    async def stop(self) -> None:
        """
        Stop listening, abort the connections, call off all timers.

        It returns when the connections that came in by :meth:`listen` are
        closed; those on transports of the caller's own are the caller's.
        What :meth:`wait_for` and :meth:`mail` returned and has not fired is
        cancelled.  The records stay.
        """
        ports, self._ports = self._ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)
        for protocol in list(self._open):
            protocol.abort()
        if self._awaited():
            if self._last_lost is None:
                self._last_lost = Deferred()
            await self._last_lost
        for _, waiting in list(self._waiting):
            waiting.cancel()

    # What the protocols ask.

    def begin_session(self, protocol: SinkProtocol, peer: str) -> Session:
        """A connection has come in."""
        self.session_count += 1
        session = Session(self.session_count, peer)
        self._open[protocol] = None
        if self.settings.keep_records:
            self.sessions.append(session)
        return session

    def end_session(self, protocol: SinkProtocol) -> None:
        """It is gone."""
        self._open.pop(protocol, None)
        if self.on_session is not None:
            try:
                self.on_session(protocol.session)
            except Exception:
                _log.failure("on_session failed")
        if self._last_lost is not None and not self._awaited():
            lost, self._last_lost = self._last_lost, None
            lost.callback(None)

    def next_number(self) -> int:
        """Of the next mail to arrive."""
        return self.mail_count + 1

    def arrived(self, mail: Mail) -> None:
        """Its content is in and its final reply decided."""
        self.mail_count += 1
        if self.settings.keep_records:
            self.mails.append(mail)
            mail.session.mails.append(mail)
        if self.on_mail is not None:
            try:
                self.on_mail(mail)
            except Exception:
                _log.failure("on_mail failed")

    def tell(self) -> None:
        """The replies to what was read are written: fire what waits for mails."""
        if not self._waiting:
            return
        ready = [each for each in self._waiting if each[0] <= self.mail_count]
        self._waiting = [each for each in self._waiting if each[0] > self.mail_count]
        for _, waiting in ready:
            waiting.callback(None)

    def _awaited(self) -> bool:
        return any(protocol.awaited for protocol in self._open)

    def _forget_waiting(self, cancelled: Deferred[None]) -> None:
        self._waiting = [each for each in self._waiting if each[1] is not cancelled]

    def _factory_for(self, implicit_tls: Any, awaited: bool) -> IProtocolFactory:
        plain = SinkFactory(lambda fault: SinkProtocol(self, awaited=awaited, handshake_fault=fault))
        if implicit_tls is None:
            return plain
        tls = TLSMemoryBIOFactory(implicit_tls, False, plain, self.reactor)
        return ImplicitTLSFactory(plain, tls, self._handshake_fault)

    def _handshake_fault(self) -> Fault | None:
        return self.plan.take(Stage.HANDSHAKE, self.session_count + 1)
